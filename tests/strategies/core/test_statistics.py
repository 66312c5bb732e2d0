"""The alignment that methods share: its options reach the loop, and what it changes is undone."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from cl_adapters.heads.alignment import Alignment, aged_means, align_head
from cl_adapters.heads.class_to_task import ClassToTask
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.strategies.core.event_log import EventLog
from cl_adapters.strategies.core.guessing import GuessConfig, TaskGuess
from cl_adapters.strategies.core.statistics import AlignmentConfig

EXPERIENCES = [[4, 1], [0]]  # whose rows stand elsewhere than their labels


def model_of(config: AlignmentConfig) -> Any:
    draws = torch.Generator().manual_seed(0)
    heads, owners = ExperienceHeads(3, init_std=1.0), ClassToTask()
    classes = config.build_statistics(3)
    for number, labels in enumerate(EXPERIENCES):
        heads.add_classes(labels, draws)
        owners.register(labels, number)
        for label in labels:
            classes.add(label, torch.randn(5, 3, generator=draws))
    unaligned = config.build_unaligned()
    return SimpleNamespace(heads=heads, classes=classes, class_to_task=owners, unaligned=unaligned)


def test_every_option_reaches_the_alignment() -> None:
    config = AlignmentConfig(
        alignment_epochs=3,
        alignment_lr=0.3,
        alignment_samples=4,
        alignment_period=2,
        mean_scaling="slca",
        logit_temperature=0.1,
        statistics="full",
        variance_floor=0.5,
    )
    model = model_of(config)
    assert model.classes.spreads.square().min().item() == pytest.approx(0.5)
    expected = model.heads.joined([0, 1, 4])
    options = Alignment(
        epochs=3, batch_size=4, lr=0.3, weight_decay=0, schedule_epochs=2, temperature=0.1
    )
    experiences = torch.tensor([1, 0, 0])
    scales = torch.tensor([1.0, 0.95, 0.95])
    torch.testing.assert_close(aged_means(experiences), scales)
    draws = torch.Generator().manual_seed(1)
    align_head(expected, model.classes, draws, options, experiences=experiences, mean_scales=scales)
    events = EventLog()
    config.align(model, torch.Generator().manual_seed(1), events)
    torch.testing.assert_close(model.heads.joined([0, 1, 4]).weight, expected.weight)
    torch.testing.assert_close(model.heads.joined([0, 1, 4]).bias, expected.bias)
    assert events.timings["alignment"][1] == 3 * 4 * 3  # samples drawn


@pytest.mark.parametrize("restore", [True, False])
def test_a_head_is_put_back_only_where_it_is_asked_for(restore: bool) -> None:
    config = AlignmentConfig(alignment_epochs=1, alignment_lr=0.5, head_restore=restore)
    model = model_of(config)
    before = copy.deepcopy(model.heads.state_dict())

    def is_as_before() -> bool:
        return all(torch.equal(v, before[k]) for k, v in model.heads.state_dict().items())

    config.align(model, torch.Generator().manual_seed(0), EventLog())
    assert not is_as_before()
    config.restore_head(model)
    assert is_as_before() == restore


def test_the_first_stage_of_hide_prompt_shares_them() -> None:
    """Classes 0, 1 and 4, of which 0 comes again: its new images are one more component."""
    told: dict[str, Any] = {"alignment_epochs": 2, "alignment_samples": 4, "alignment_lr": 0.3}
    config = GuessConfig(**told, mean_scaling="slca", logit_temperature=0.1, statistics="full")
    model, rows = model_of(config), torch.randn(6, 3)
    expected, classes = model.heads.joined([0, 1, 4]), copy.deepcopy(model.classes)
    classes.add(0, rows)
    owners, draws = torch.tensor([1, 0, 0]), torch.Generator().manual_seed(1)
    options = Alignment(epochs=2, batch_size=4, lr=0.3, weight_decay=0, temperature=0.1)
    scales = torch.tensor([1.0, 0.95, 0.95])
    align_head(expected, classes, draws, options, experiences=owners, mean_scales=scales)
    labels = torch.zeros(6, dtype=torch.int64)
    config.align_on(model, [(rows, labels)], torch.Generator().manual_seed(1), EventLog())
    torch.testing.assert_close(model.heads.joined([0, 1, 4]).weight, expected.weight)
    # The guess takes them as well; without a number it samples as many as training shows.
    guess = TaskGuess(3, config, draws)
    guess.add_classes([0, 1], 0, draws)
    labels[3:] = 1
    guess.align([(rows, labels)], config, draws, EventLog())  # the first experience aligns nothing
    for samples in (4, None):
        events = EventLog()
        asked = config.model_copy(update={"alignment_samples": samples})
        guess.align([(rows, labels)], asked, draws, events)
        assert events.timings["alignment"][1] == 2 * (samples or 32) * 2


def states_of(name: str, **options: object) -> list[dict[str, Tensor]]:
    given = {"alignment_lr": 0.5, "alignment_epochs": 2, **options}
    trial = Trial(find_strategy(name), given)
    return trial.train(trial.build(), TinyStream()).states


@pytest.mark.parametrize("name", ["mos", "hide_prompt"])
def test_it_learns_on_from_the_head_before_its_alignment_if_asked_to(name: str) -> None:
    # The head before the last alignment is then that of a run without any.
    given: dict[str, object] = {} if name == "mos" else {"guess_epochs": 1}
    kept, without, aligned = (
        states_of(name, **given, **options)[-1]
        for options in ({"head_restore": True}, {"alignment": False}, {})
    )

    def head(state: dict[str, Tensor]) -> Tensor:
        return torch.cat([state[f"heads.layers.{number}.weight"] for number in range(3)])

    assert torch.equal(kept["unaligned.weight"], head(without))
    assert not torch.equal(kept["unaligned.weight"], head(kept))
    assert not torch.equal(head(aligned), head(kept))  # there alignments add up
    assert not any("unaligned" in name for name in aligned)


@pytest.mark.slow  # the suite over the defaults is run each time
@pytest.mark.parametrize("name", ["mos", "hide_prompt"])
def test_a_method_with_a_head_that_is_put_back_is_sound(name: str) -> None:
    options = {"head_restore": True, "mean_scaling": "slca", "logit_temperature": 0.1}
    names = ["answers", "declares", "resumes", "resumes_inside", "small"]
    assert check_strategy(find_strategy(name), options=options, checks=names) == []
