"""A point of an experience against a trainer that nothing stopped."""

import random
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler

from cl_adapters.peft.noise import PeftNoise
from cl_adapters.randomness import seed_random_states
from cl_adapters.strategies.core.checkpointing import (
    CheckpointMismatchError,
    ResumablePlugin,
    load_trainer_state,
    trainer_state,
)
from cl_adapters.strategies.core.samplers import ResumableBatchSampler


class Counter(ResumablePlugin):
    """Counts steps."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, facts: Mapping[str, Any]) -> None:
        self.steps = facts["steps"]


class Trainer:
    """Learns from noise of four sources, in a random order of ten images."""

    def __init__(self, seed: int) -> None:
        draws = torch.Generator().manual_seed(seed)
        self.model = nn.Linear(3, 2)
        with torch.no_grad():
            for value in self.model.parameters():
                value.normal_(generator=draws)
        self.optimizer: Any = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        whole: Any = range(10)
        sampler = RandomSampler(whole, generator=draws)
        self.order = ResumableBatchSampler(sampler, 3, drop_last=False, generator=draws)
        self.clock = SimpleNamespace(steps=0, name="clock")
        self.plugins = [object(), Counter()]
        self.noise = torch.Generator().manual_seed(seed + 1)
        self.peft_noise = PeftNoise()
        self.seen: list[list[int]] = []

    def learned_state(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def generators(self) -> dict[str, torch.Generator]:
        return {"noise": self.noise}

    def step(self, batch: list[int]) -> None:
        self.seen.append(batch)
        drawn = torch.rand(1), torch.rand(1, generator=self.noise), random.random()
        scale = sum(map(float, drawn)) + np.random.random()  # noqa: NPY002
        self.optimizer.zero_grad()
        (scale * self.model(torch.ones(3) * sum(batch)).square().sum()).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.clock.steps += 1
        self.plugins[1].steps += 1  # type: ignore[attr-defined]


def test_what_goes_on_from_a_point_is_as_if_nothing_had_stopped_it() -> None:
    seed_random_states(7)
    straight = Trainer(0)
    place = straight.order.place()
    batches = iter(straight.order)
    for _ in range(2):
        straight.step(next(batches))
    point = trainer_state(straight, 1, 3, place, 2)
    for batch in batches:
        straight.step(batch)
    assert len(straight.seen) == 4
    seed_random_states(99)  # whatever happened since
    resumed = Trainer(5)
    for group in resumed.optimizer.param_groups:
        group["lr"] = 77.0
    load_trainer_state(resumed, point)
    assert (point.phase, point.epoch) == (1, 3)
    for batch in resumed.order:
        resumed.step(batch)
    assert resumed.seen == straight.seen[2:]
    for one, other in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert resumed.clock.steps == resumed.plugins[1].steps == 4  # type: ignore[attr-defined]
    assert len(list(resumed.order)) == 4  # one pass was shorter, and it alone


def test_a_point_of_another_model_is_refused() -> None:
    trainer = Trainer(0)
    point = trainer_state(trainer, 0, 1, trainer.order.place(), 0)
    trainer.model = nn.Linear(4, 2)
    with pytest.raises(CheckpointMismatchError, match="must fit strategy Trainer in phase 0"):
        load_trainer_state(trainer, point)
