"""SEMA watched as a whole: paths, frozen features beside adapted ones, classifiers by path."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cl_adapters.bundle.model import adapters_of
from cl_adapters.heads.by_path import PathClassifiers
from cl_adapters.heads.registry import build_closed_head
from cl_adapters.records.event_kinds import Active, Growth
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.sema import SEMA
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.trained_mos import images_of
from tests.strategies.trained_sema import TWO, Scripted, adapters_by_block, build, snapshot

WHOLE = {"watch": "network", "detector": "scripted", "classifiers": "both", "beside": True}


def _grown(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted], **options: Any
) -> tuple[SEMA, Any]:
    strategy = build(tiny_vit, **{"expandable": 2, "lr": 0.05, **WHOLE, **options})
    stream = make_stream([*TWO, [4, 5]])
    strategy.train(stream.train_stream[0])
    scripted.fires = lambda _: True
    strategy.train(stream.train_stream[1])
    scripted.asked.clear()
    scripted.fires = lambda question: question % 2 == 1  # the first detector knows the third
    strategy.train(stream.train_stream[2])
    return strategy, stream


def test_blocks_grow_together_and_an_experience_returns_to_its_path(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    strategy, _ = _grown(tiny_vit, make_stream, scripted)
    assert adapters_by_block(strategy) == {4: 2, 5: 2}
    assert strategy.model.active.tolist() == [0, 0]
    events = strategy.pop_events(0)
    assert [each.adapter for each in events if isinstance(each, Active)] == [0, 1, 0]
    (growth,) = [each for each in events if isinstance(each, Growth)]
    classes = strategy.model.classes
    assert isinstance(classes, PathClassifiers)
    own = [strategy.model.slot(block).adapters[1] for block in (4, 5)]
    parts = [each.state_dict().values() for each in [*own, classes.paths[1]]]
    held = sum(value.numel() for part in parts for value in part)
    groups = 2 * (64 + 1 + 2) + 2 * 2  # of the regimes' discriminant; what groups of the path are
    assert growth.parameters == held + groups + 1  # the detector's only number


def test_what_a_path_learned_stays_when_another_grows(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    strategy = build(tiny_vit, expandable="all", lr=0.05, **WHOLE)
    stream = make_stream(TWO).train_stream
    strategy.train(stream[0])
    images = images_of(stream[0])[0]
    before = strategy.model.features(images, chosen=0).detach()
    adapters = snapshot(strategy.model.adapters)
    scripted.fires = lambda _: True
    strategy.train(stream[1])
    assert adapters_by_block(strategy) == dict.fromkeys(range(6), 2)
    assert torch.equal(strategy.model.features(images, chosen=0), before)
    assert not torch.equal(strategy.model.features(images, chosen=1), before)
    after = strategy.model.adapters.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in adapters.items())


def test_answers_are_those_of_each_images_path_by_hand(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    strategy, stream = _grown(tiny_vit, make_stream, scripted)
    model = strategy.model.eval()
    trained = [images_of(each) for each in stream.train_stream]
    paths = [0, 1, 0]
    shared, *own = (build_closed_head("discriminant", width) for width in (2 * 64, 64, 64))
    for head in (shared, *own):
        head.add_classes(range(6))
    with torch.no_grad():
        for (images, labels), path in zip(trained, paths, strict=True):
            features = model.features(images, chosen=path)
            own[path].add(features, labels)
            shared.add(torch.cat((tiny_vit(images), features), dim=1), labels)
        asked = torch.cat([images_of(each)[0] for each in stream.test_stream])
        output = strategy.answer(asked)
        assert model.regimes is not None
        chosen = model.regimes.of_images(tiny_vit(asked))
        assert sorted(set(chosen.tolist())) == [0, 1]
        for number, image in enumerate(asked):
            path = int(chosen[number])
            features = model.features(image[None], chosen=path)
            known = [0, 1, 4, 5] if path == 0 else [2, 3]
            expected = shared(torch.cat((tiny_vit(image[None]), features), dim=1))
            expected = expected + own[path](features)
            torch.testing.assert_close(
                output.logits[number, known], expected[0, known], atol=1e-3, rtol=1e-3
            )
            assert int(output.logits[number].argmax()) in known
            (record,) = output.extras["router"].values()
            assert record.weights[number].tolist() == [1.0 * (k == path) for k in (0, 1)]
            assert adapters_of(output)["all blocks"][number] == path


@pytest.mark.parametrize("watch", ["slots", "network"])
def test_frozen_features_stand_beside_the_adapted_ones(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], watch: str
) -> None:
    strategy = build(tiny_vit, policy="never", beside=True, watch=watch, lr=0.05)
    stream = make_stream(TWO)
    head = build_closed_head("discriminant", 2 * 64)
    for experience in stream.train_stream:
        strategy.train(experience)
        images, labels = images_of(experience)
        with torch.no_grad():
            chosen = 0 if watch == "network" else None
            features = strategy.model.features(images, chosen=chosen)
            head.add_classes(labels.tolist())
            head.add(torch.cat((tiny_vit(images), features), dim=1), labels)
    asked = images_of(stream.test_stream[0])[0]
    with torch.no_grad():
        features = strategy.model.features(asked, chosen=chosen)
        expected = head(torch.cat((tiny_vit(asked), features), dim=1))
    torch.testing.assert_close(strategy.answer(asked).logits, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("start", ["last", "nearest", "knn", "mean"])
def test_a_new_path_begins_where_the_option_says(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted], start: str
) -> None:
    strategy, _ = _grown(tiny_vit, make_stream, scripted, start=start, lr=1e-12)
    for block in (4, 5):
        first, second = (each.state_dict() for each in strategy.model.slot(block).adapters)
        for name, value in first.items():
            torch.testing.assert_close(value, second[name])
        assert float(first["down"].abs().max()) > 0


def test_an_adapter_that_is_left_out_is_stood_in_for_by_the_first(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    strategy, stream = _grown(tiny_vit, make_stream, scripted)
    images = images_of(stream.test_stream[1])[0]
    model, paths = strategy.model, torch.ones(len(images), dtype=torch.int64)
    assert model.grown() == [(4, 1), (5, 1)]
    with torch.no_grad(), model.leaving_out(model.grown()):
        left_out = model.features(images, chosen=paths)
        alone = model.features(images, chosen=1)
    torch.testing.assert_close(left_out, model.features(images, chosen=0))
    torch.testing.assert_close(alone, left_out)
    assert not torch.allclose(left_out, model.features(images, chosen=1), atol=1e-3)


@pytest.mark.parametrize("more", [0, -1])
def test_a_budget_holds_all_that_paths_add_their_classes_too(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted], more: int
) -> None:
    one = 2 * (2 * 64 * 16 + 16 + 64) + 1  # adapters in two blocks, the detector's only number
    one += 64 * 64  # the covariance of the path's classifier
    a_class = (64 + 1) + 2 + (64 + 3)  # sum and count, what it is; and of the regimes' discriminant
    budget = {"parameters": 2 * one + (2 + 3) * a_class + more}
    strategy = build(tiny_vit, **{**WHOLE, "expandable": 2, "budget": budget})
    scripted.fires = lambda _: True
    for experience in make_stream([*TWO, [4, 5, 0], [1, 2]]).train_stream:
        strategy.train(experience)
    grown = [each.parameters for each in strategy.pop_events(0) if isinstance(each, Growth)]
    # The second path does not fit if one number is missing; one of fewer classes then does.
    second = one + (3 if more == 0 else 2) * a_class
    assert grown == [one + 2 * a_class, second]
    assert adapters_by_block(strategy) == {4: 3, 5: 3}


@pytest.mark.slow
@pytest.mark.parametrize("classifiers", ["one", "both"])
def test_it_is_sound(classifiers: str) -> None:
    options = {**WHOLE, "detector": "mahalanobis", "classifiers": classifiers}
    assert check_strategy(SEMA, options={**options, "expandable": 2, "start": "nearest"}) == []


def test_it_goes_on_in_the_middle_and_answers_each_image_by_itself() -> None:
    options = {**WHOLE, "detector": "mahalanobis", "expandable": 2}
    checks = ["resumes_inside", "batches", "passes", "growth"]
    assert check_strategy(SEMA, options=options, checks=checks) == []


def test_options_of_a_closed_head_leave_a_trained_one_alone(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    strategy, stream = _grown(tiny_vit, make_stream, scripted, head="linear")
    model = strategy.model
    assert model.classes is None
    assert model.regimes is not None
    asked = images_of(stream.test_stream[1])[0]
    with torch.no_grad():
        paths = model.regimes.of_images(tiny_vit(asked))
        expected = model.heads(model.features(asked, chosen=paths))
    torch.testing.assert_close(strategy.answer(asked).logits, expected, atol=1e-4, rtol=1e-4)


def test_without_detectors_the_nearest_path_is_that_of_the_likeliest_classes(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    options = {"policy": "every_experience", "start": "nearest", "lr": 1e-12}
    strategy = build(tiny_vit, expandable=1, **{**WHOLE, "detector": "mahalanobis", **options})
    stream = make_stream([[0, 1], [2, 3], [2, 3]]).train_stream
    for experience in stream:
        strategy.train(experience)
        slot = strategy.model.slot(5)
        with torch.no_grad():  # so that each can be told from those that begin at it
            slot.adapters[-1].get_parameter("up_bias").fill_(len(slot))
    assert strategy.model.regimes is not None
    assert strategy.model.regimes.nearest == 1
    assert [float(each.get_parameter("up_bias")[0]) for each in slot.adapters] == [1, 2, 3]


def test_an_experience_of_a_known_kind_passes_the_network_twice(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    strategy = build(tiny_vit, expandable="all", **WHOLE)
    first, second = make_stream(TWO).train_stream
    strategy.train(first)
    scripted.fires = lambda _: False
    passed: list[int] = []
    embed = tiny_vit.vit.patch_embed
    embed.register_forward_pre_hook(lambda _, given: passed.append(len(given[0])))
    strategy.train(second)
    # Frozen once, for the detector and the classifier alike, and once under the path's adapters.
    assert sum(passed) == 2 * len(second.dataset)
