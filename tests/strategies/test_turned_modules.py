"""PEFT modules that turn after the first experience, in whole runs."""

from typing import Any

import pytest

from cl_adapters.peft.registry import find_peft
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial


@pytest.mark.parametrize("method", ["finetune", "lae"])
def test_they_turn_at_the_end_of_the_first_experience_and_train_on(method: str) -> None:
    trial = Trial(find_strategy(method), {"peft": "corda"})
    strategy: Any = trial.build()
    trial.train(strategy, TinyStream())
    sets = [strategy.model.online, strategy.model.offline] if method == "lae" else []
    sets = sets or [strategy.model.adapters]
    slot = find_peft("corda").slot
    for block in (0, 1):
        modules = [each.at(slot, block) for each in sets]
        for module in modules:
            assert module.up_start.any(), "it turned"
            assert module.up_before.any(), "after it had learned"
            assert (module.up != module.up_start).any(), "and went on"
            assert (module.up_start == modules[0].up_start).all(), "to the same directions"
