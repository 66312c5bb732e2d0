"""What methods share that train one PEFT set on and on, under heads of cosines."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from tests.strategies.watched import Watch

OLD = "heads.layers.0.weight"


def trained(name: str, **options: Any) -> tuple[Any, Watch]:
    fast = {"size": 4, "epochs": 2, "lr": 0.05, "weight_decay": 0.2, "alignment": False}
    trial, watch = Trial(find_strategy(name), {**fast, **options}), Watch()
    strategy = trial.build()
    strategy.plugins.append(watch)
    return trial.train(strategy, TinyStream(experiences=((2, 0), (1, 3)))), watch


@pytest.mark.parametrize("name", ["ssiat", "tuna"])
def test_weight_decay_shortens_old_heads_in_the_official_code_and_turns_none(name: str) -> None:
    run, watch = trained(name, head_freeze=False)
    before, after = (state[OLD] for state in run.states)
    expected, velocity = before.clone(), torch.zeros_like(before)
    per_epoch = len(watch.batches[1]) // 2
    for (rate,) in watch.rates[1]:
        for _ in range(per_epoch):
            velocity = 0.9 * velocity + 0.2 * expected
            expected = expected - rate * velocity
    torch.testing.assert_close(after, expected)
    assert bool((after.norm(dim=1) < 0.95 * before.norm(dim=1)).all())
    turned = functional.cosine_similarity(before, after)
    torch.testing.assert_close(turned, torch.ones(2))


@pytest.mark.parametrize("name", ["ssiat", "tuna"])
def test_old_heads_stay_as_they_are_by_default(name: str) -> None:
    run, _ = trained(name)
    assert torch.equal(run.states[1][OLD], run.states[0][OLD])
