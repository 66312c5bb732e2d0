"""Where and when SEMA grows, and what it says of it; with detectors that fire as told."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.peft.routing import SlotRecord
from cl_adapters.records.event_kinds import Active, Router, Scan
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.trained_sema import (
    TWO,
    Epochs,
    Scripted,
    adapters_by_block,
    build,
    changed,
    snapshot,
)


def test_a_window_grows_the_shallowest_block_that_fires_and_deeper_ones_are_not_asked(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    strategy = build(tiny_vit, detector="scripted", detect_batch_size=24)
    stream = make_stream(TWO).train_stream
    strategy.train(stream[0])
    scripted.fires = lambda question: question == 1  # block 3 no, block 4 yes
    strategy.train(stream[1])
    # One window: blocks 3 and 4; then, as block 4 grew, a second pass over blocks 3 and 5.
    assert [number for number, _ in scripted.asked] == [0, 1, 0, 2]
    assert adapters_by_block(strategy) == {3: 1, 4: 2, 5: 1}


def test_scanning_repeats_until_a_pass_is_clean_and_a_block_grows_once(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    epochs = Epochs()
    strategy = build(tiny_vit, epochs, detector="scripted", detect_batch_size=24, epochs=2)
    stream = make_stream(TWO).train_stream
    strategy.train(stream[0])
    scripted.fires = lambda _: True
    epochs.trainable.clear()
    strategy.train(stream[1])
    # Pass 1 grows block 3, pass 2 block 4, pass 3 block 5; then no block is left to ask.
    assert len(scripted.asked) == 3
    assert adapters_by_block(strategy) == {3: 2, 4: 2, 5: 2}
    assert len(epochs.trainable) == 3 * 2
    grown = [{name.split(".")[2] for name in each if "mlp" in name} for each in epochs.trainable]
    assert grown == [{"mlp_3"}] * 2 + [{"mlp_4"}] * 2 + [{"mlp_5"}] * 2


def test_with_several_adapters_a_block_grows_only_if_all_fire(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    strategy = build(tiny_vit, detector="scripted", detect_batch_size=24, expandable=1)
    stream = make_stream([[0, 1], [2, 3], [4, 5]]).train_stream
    strategy.train(stream[0])
    scripted.fires = lambda _: True
    strategy.train(stream[1])
    assert adapters_by_block(strategy) == {5: 2}
    scripted.asked.clear()
    scripted.fires = lambda question: question == 0  # the first detector fires, the second not
    strategy.train(stream[2])
    assert [number for number, _ in scripted.asked] == [0, 1]
    assert adapters_by_block(strategy) == {5: 2}


def test_remaining_windows_are_scanned_after_growth_and_the_last_window_by_the_option(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    stream = make_stream(TWO, per_class=10).train_stream
    for merge, windows in ((False, [8, 8, 4]), (True, [8, 12])):
        scripted.asked.clear()
        scripted.fires = lambda question: question == 0
        strategy = build(
            tiny_vit,
            detector="scripted",
            detect_batch_size=8,
            expandable=1,
            merge_last=merge,
        )
        strategy.train(stream[0])
        strategy.train(stream[1])
        # Grown at the first window: the others of that pass and of the next are not asked, since
        # the only block has grown.
        assert [images for _, images in scripted.asked] == windows[:1]
        scripted.asked.clear()
        scripted.fires = lambda _: False
        strategy.train(stream[1])
        assert [images for _, images in scripted.asked] == [
            images for images in windows for _ in range(2)
        ]


def test_policies_and_budgets_decide_what_grows(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    stream = make_stream([[0, 1], [2, 3], [4, 5]]).train_stream
    one = 2 * 64 * 16 + 16 + 64 + 1  # adapter and the detector's only number
    cases: list[tuple[dict[str, Any], Callable[[int], bool], list[int]]] = [
        ({"policy": "never"}, lambda _: True, [1, 1, 1]),
        ({"policy": "every_experience"}, lambda _: False, [3, 3, 3]),
        ({"policy": "whole_network"}, lambda question: question == 0, [2, 2, 2]),
        ({"budget": {"adapters": 2}}, lambda _: True, [2, 2, 2]),
        ({"budget": {"parameters": 2 * one}}, lambda _: True, [2, 2, 1]),
        ({"policy": "whole_network", "budget": {"parameters": 4 * one}}, lambda _: True, [3, 2, 2]),
    ]
    for options, fires, expected in cases:
        scripted.asked.clear()
        scripted.fires = fires
        strategy = build(tiny_vit, detector="scripted", **options)
        strategy.train(stream)
        assert list(adapters_by_block(strategy).values()) == expected, options


def test_events_say_why(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    strategy = build(tiny_vit, detector="scripted", expandable=1, budget={"adapters": 2})
    benchmark = make_stream([[0, 1], [2, 3], [4, 5]])
    reasons = []
    for index, experience in enumerate(benchmark.train_stream):
        scripted.fires = lambda _: True
        strategy.train(experience)
        strategy.eval(benchmark.test_stream[: index + 1])
        events = strategy.pop_events(index)
        assert all(event.experience == index for event in events)
        reasons += [(each.grown, each.reason) for each in events if isinstance(each, Scan)]
        (router,) = [each for each in events if isinstance(each, Router)]
        assert len(router.weights) == index + 1
        assert all(sum(row) == pytest.approx(1) for row in router.weights)
    assert reasons == [
        (True, "all 1 detectors fired"),
        (False, "budget of 2 adapters a block is spent"),
    ]
    assert strategy.pop_events(0) == []


def test_too_few_images_and_too_small_budgets_leave_the_model_as_it_was(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    strategy = build(tiny_vit, detector="scripted")
    before = snapshot(strategy.model)
    with pytest.raises(InputError, match="at least 4 training images .*'scripted', got 2"):
        strategy.train(make_stream([[0, 1]], per_class=1).train_stream[0])
    assert not changed(before, strategy.model)
    assert set(before) == set(strategy.model.state_dict())
    with pytest.raises(InputError, match="`budget.parameters` must hold one adapter, 2129 param"):
        build(tiny_vit, detector="scripted", budget={"parameters": 100})


@pytest.mark.parametrize("official", [True, False])
def test_a_checkpoint_brings_back_adapters_statistics_and_decisions(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], official: bool
) -> None:
    stream = make_stream([[0, 1], [2, 3], [4, 5]]).train_stream
    options = {"official": official, "threshold": 0.01, "signed": False}
    straight = build(tiny_vit, **options)
    straight.train(stream[:2])
    state = {name: value.clone() for name, value in straight.learned_state().items()}
    assert sum(adapters_by_block(straight).values()) > 3
    straight.pop_events(1)
    resumed = build(tiny_vit, **options)
    resumed.restore(state, stream[:2])
    assert adapters_by_block(resumed) == adapters_by_block(straight)
    for strategy in (straight, resumed):
        strategy.train(stream[2])
    assert resumed.pop_events(2) == straight.pop_events(2)
    for name, value in straight.learned_state().items():
        assert torch.equal(value, resumed.learned_state()[name]), name


def test_nan_features_stop_the_scan_before_anything_grows(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit)
    stream = make_stream(TWO).train_stream
    strategy.train(stream[0])
    with torch.no_grad():
        strategy.model.adapters.at("mlp", 0).up_bias.fill_(torch.nan)
    with pytest.raises(InputError, match="features must be finite"):
        strategy.train(stream[1])
    assert adapters_by_block(strategy) == {3: 1, 4: 1, 5: 1}


def test_an_experience_goes_to_the_adapter_that_recognises_it(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    """The router's statistics are those of plain loops over each adapter's own experiences."""
    strategy = build(tiny_vit, detector="scripted", detect_batch_size=24, expandable=1)
    stream = make_stream([[0, 1], [2, 3], [4, 5], [0, 5]]).train_stream
    entered: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    # One window an experience; which detectors fire; whose it is then; whether the active one fired.
    plan: list[tuple[Callable[[int], bool], int, bool]] = [
        (lambda _: False, 0, False),
        (lambda _: True, 1, True),
        (lambda question: question == 1, 0, True),
        (lambda question: question == 1, 0, False),
    ]
    for experience, (fires, owner, was_changed) in zip(stream, plan, strict=True):
        scripted.asked.clear()
        scripted.fires = fires
        strategy.train(experience)
        slot = strategy.model.slot(5)
        assert strategy.model.active_adapter(5) == owner
        told = [each for each in strategy.pop_events(experience.current_experience)
                if isinstance(each, Active)]  # fmt: skip
        assert [(each.adapter, each.changed) for each in told] == [(owner, was_changed)]
        images = torch.stack([row[0] for row in experience.dataset])
        record: dict[int, SlotRecord] = {}
        with torch.no_grad():
            strategy.model.eval().features(strategy.model.prefix(images), record)
        entered[owner].append(record[5].mean_tokens.double())
        for adapter in range(len(slot)):
            rows = torch.cat(entered[adapter])
            assert float(slot.discriminant.counts[adapter]) == len(rows)
            torch.testing.assert_close(
                slot.discriminant.sums[adapter], rows.sum(dim=0), rtol=1e-4, atol=1e-4
            )
