"""The frozen network, and where PEFT modules plug in.

`adapted_vit` is the network, `slots` how a block runs with filled slots; no other file knows timm's
blocks. `pretrained` finds networks by name, `weight_files` reads weights, `embedded` ships one;
`emoe` lets MLPs choose among clusters of their neurons.
`classifier` and `expandable` are networks with adapters that several methods share. `calibration`
and `site_gradients` show data to modules that ask for it; `checks` is what every kind of module
must satisfy.
"""
