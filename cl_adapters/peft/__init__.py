"""PEFT modules: small trainable modules for a frozen network, and what is done with sets of them.

A module a file: `bottleneck`, `lora`, `prefix`; `registry` finds them by name. `adapter_set` says
what the slots of a block are. `stack` and `bank` keep whole sets as tensors, on what `template`
makes of a module. `routing`, `retrieval`, `merging` and `growth` mix, choose, average and add
modules. `low_rank` sums and merges updates of projections, `gradient_spaces` keeps what earlier
data span. `noise` and `frozen` see to what modules draw. Nothing here knows a network.
"""
