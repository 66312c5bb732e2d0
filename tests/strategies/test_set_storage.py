"""MOS, TUNA and EASE whose finished sets are stored at one bit a number."""

import re
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from cl_adapters.benchmarks.running.storing import _count_parameters
from cl_adapters.errors import InputError
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.checks.trial import Run, TinyStream, Trial
from cl_adapters.vit.checks import tiny_backbone
from tests.peft.test_onebit_bank import by_hand
from tests.strategies.watched import NAMES, in_slots, plain_set

TWO = ((0, 1), (2, 3))
BITS = {"set_storage": "one_bit"}
OPTIONS: dict[str, dict[str, Any]] = {
    "mos": {"merge": "none", "size": 4},
    "tuna": {"size": 4},
    "ease": {"size": 4},
}


@cache
def trained(name: str, storage: str = "one_bit") -> Run:
    trial = Trial(find_strategy(name), {**OPTIONS[name], "set_storage": storage})
    return trial.train(trial.build(), TinyStream(experiences=TWO), only_last=True)


def what_was_trained(run: Run, experience: int) -> list[Tensor]:
    return [run.states[experience][f"current_adapters.{name}"] for name in NAMES]


@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_stored_are_bits_of_what_was_trained_which_goes_on_as_it_was(name: str) -> None:
    run = trained(name)
    bank: Any = run.strategy.model.frozen_adapters
    for experience in range(2):
        for value, found in zip(
            what_was_trained(run, experience), bank.at(experience), strict=True
        ):
            expected = torch.stack([*map(by_hand, value)])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    held = [each for each in run.states[1] if each.startswith("frozen_adapters.")]
    ends = ("_bits", "_moments")
    assert held == [f"frozen_adapters.{each}{end}" for each in NAMES for end in ends]


@pytest.mark.parametrize("name", OPTIONS)
def test_means_of_classes_are_those_under_the_set_that_answers(name: str) -> None:
    run, vit = trained(name), tiny_backbone()
    tensors = [torch.stack([*map(by_hand, each)]) for each in what_was_trained(run, 1)]
    stored = in_slots(plain_set(vit, tensors, 1.0))
    images, labels = TinyStream(experiences=TWO).train_sets[1].tensors
    with torch.no_grad():
        features = vit(images, stored)
    model: Any = run.strategy.model
    for label in (2, 3):
        expected = features[labels == label].mean(dim=0)
        if name == "ease":
            found = model.prototypes.sums[label, 1] / model.prototypes.counts[label, 1]
        else:
            found = model.classes.means[int((model.classes.labels == label).nonzero())]
        torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-4)


def test_a_record_counts_numbers_and_no_bytes() -> None:
    (wide, _), (narrow, _) = (
        _count_parameters(trained("mos", storage).strategy) for storage in ("float", "one_bit")
    )
    blocks = tiny_backbone().num_blocks
    moments = 2 * blocks * len(NAMES) * 2  # of two sets
    assert narrow["added"] - moments == wide["added"]


@pytest.mark.parametrize(
    ("name", "checks"),
    [
        ("mos", ["resumes_inside"]),
        *(pytest.param(name, None, marks=pytest.mark.slow) for name in ("mos", "tuna", "ease")),
    ],
)
def test_it_is_sound_and_resumes_bit_for_bit(name: str, checks: list[str] | None) -> None:
    assert check_strategy(find_strategy(name), options=BITS, checks=checks) == []


@pytest.mark.slow
def test_sets_in_bits_are_continued_soundly() -> None:
    growth = {"policy": "per_block", "detector": "mahalanobis", "start": "mean"}
    options = {**BITS, **growth, "statistics": "diagonal"}
    assert check_strategy(find_strategy("mos"), options=options, checks=None) == []


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("mos", "merge", "official"),
        ("mos", "merge_in_evaluation", True),
        ("tuna", "detach_stored", False),
    ],
)
def test_what_writes_into_stored_sets_is_refused(name: str, option: str, value: object) -> None:
    config = find_strategy(name).config_class()
    sentence = f"option `{option}` must not be {value} with set_storage 'one_bit', since sets that"
    with pytest.raises(InputError, match=re.escape(sentence)):
        config.override({**BITS, option: value})
    assert config.override({option: value}).set_storage == "float"
