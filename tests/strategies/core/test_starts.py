"""Where new sets begin in LAE, SEMA and EASE, against plain arithmetic and scikit-learn.

Steps have no length worth the name: what is trained ends as what it began as.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.growth_round import GrowthRound
from cl_adapters.strategies.core.paths import SLOTS
from cl_adapters.strategies.core.slot_starts import SlotStarts
from cl_adapters.strategies.core.starting import mean_state
from cl_adapters.strategies.ease import EASE, EASEConfig
from cl_adapters.strategies.lae import LAE, LAEConfig
from cl_adapters.strategies.mos import MOSConfig
from cl_adapters.strategies.sema import SEMA, SEMAConfig
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.trained_mos import THREE, images_of
from tests.strategies.trained_sema import Scripted

STILL: dict[str, Any] = {"batch_size": 8, "epochs": 1, "lr": 1e-12}


def build(kind: type[EASE | LAE | SEMA], vit: AdaptedViT, **options: Any) -> Any:
    return kind(
        backbone=vit,
        config=kind.config_class().override({**STILL, **options}),
        fixed_views=True,
        evaluator=EvaluationPlugin(loggers=[BaseLogger()]),
    )


def copied(module: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in module.parameters()]


@torch.no_grad()
def moved(module: nn.Module, by: float) -> list[Tensor]:
    """Adds hundredths to each parameter, so that sets differ; returns copies."""
    for value in module.parameters():
        value.add_(by / 100)
    return copied(module)


def mean(*sets: list[Tensor]) -> list[Tensor]:
    return [sum(each) / len(sets) for each in zip(*sets, strict=True)]


def check_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    for value, other in zip(found, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-6, atol=1e-6)


def accuracy(features: Tensor, labels: Tensor) -> float:
    model = KNeighborsClassifier(5, algorithm="brute")
    scores = cross_val_score(model, features.numpy(), labels.numpy(), cv=LeaveOneOut())
    return float(np.mean(scores))


@pytest.mark.parametrize("start", ["mean", "nearest", "knn", "fresh"])
def test_online_modules_of_a_new_regime_begin_where_the_option_says(
    tiny_vit: AdaptedViT,
    make_stream: Callable[..., Any],
    scripted: type[Scripted],
    monkeypatch: pytest.MonkeyPatch,
    start: str,
) -> None:
    scripted.fires = lambda _: True  # each experience has a regime of its own
    options = {"policy": "per_block", "detector": "scripted", "freeze_epochs": 0}
    strategy = build(LAE, tiny_vit, start=start, **options)
    stream, model = make_stream(THREE).train_stream, strategy.model
    for experience in stream[:2]:
        strategy.train(experience)
    kept = [moved(model.experts.of(regime)[0], 1 + regime) for regime in range(2)]
    moved(model.online, 7)
    monkeypatch.setattr(GrowthRound, "recognised", lambda *_: 1)
    strategy._separates = lambda regime: ((0.9, 0.2)[regime], 2)
    strategy.train(stream[2])
    fresh = copied(strategy.config.build_adapters(tiny_vit, seed=3))  # seed 0, experience 2
    expected = {
        "mean": mean(*kept),
        "nearest": kept[1],
        "knn": kept[0],
        "fresh": fresh,
    }
    check_equal(copied(model.online), expected[start])
    check_equal(copied(model.experts.of(2)[0]), expected[start])
    for regime, before in enumerate(kept):
        check_equal(copied(model.experts.of(regime)[0]), before)


@pytest.mark.parametrize(("start", "beta"), [("last", 0.0), ("mean", 0.1), ("knn", 0.0)])
def test_a_set_of_ease_begins_at_earlier_ones_but_the_plain_network_s(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], start: str, beta: float
) -> None:
    strategy = build(EASE, tiny_vit, start=start, beta=beta, weight_decay=0)
    stream, model = make_stream(THREE).train_stream, strategy.model
    for experience in stream[:2]:
        strategy.train(experience)
    first = int(beta > 0)
    bank = model.frozen_adapters
    with torch.no_grad():
        for value in bank.tensors():
            value[first] += 0.01
            value[first + 1] += 0.02
    sets = [[value.clone() for value in bank.at(first + each)] for each in range(2)]
    stands = moved(model.current_adapters, 7)
    strategy._separates = lambda stored: ({first: 0.2, first + 1: 0.9}[stored], 2)
    strategy.train(stream[2])
    expected = {"last": stands, "mean": mean(*sets), "knn": sets[1]}[start]
    check_equal(bank.at(first + 2), expected)
    for before, each in zip(sets, range(2), strict=True):
        check_equal(bank.at(first + each), before)


@pytest.mark.parametrize("start", ["last", "mean", "nearest", "knn"])
def test_a_grown_adapter_begins_at_those_of_its_block(
    tiny_vit: AdaptedViT,
    make_stream: Callable[..., Any],
    scripted: type[Scripted],
    monkeypatch: pytest.MonkeyPatch,
    start: str,
) -> None:
    scripted.fires = lambda _: True  # every block grows in every experience
    options = {"policy": "per_block", "detector": "scripted", "expandable": 2, "weight_decay": 0}
    strategy = build(SEMA, tiny_vit, **{**SLOTS, "start": start, **options})
    stream, model = make_stream(THREE).train_stream, strategy.model
    for experience in stream[:2]:
        strategy.train(experience)
    blocks = model.expandable
    kept = {
        block: [moved(model.slot(block).adapters[each], block + each) for each in range(2)]
        for block in blocks
    }
    monkeypatch.setattr(SlotStarts, "_nearest", lambda *_: 0)
    monkeypatch.setattr(SlotStarts, "_separates", lambda _, __, number: ((0.6, 0.9)[number], 2))
    strategy.train(stream[2])
    for block in blocks:
        first, second = kept[block]
        found = [copied(each) for each in model.slot(block).adapters]
        expected = {"last": second, "mean": mean(first, second), "nearest": first, "knn": second}
        check_equal(found[2], expected[start])
        check_equal(found[0], first)
        check_equal(found[1], second)


def test_neighbours_and_detectors_look_at_each_adapter_alone(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    scripted.fires = lambda _: True
    options = {"policy": "per_block", "detector": "scripted", "expandable": 1, "lr": 0.05}
    strategy = build(SEMA, tiny_vit, **{**SLOTS, "start": "knn", **options})
    stream, model = make_stream(THREE).train_stream, strategy.model
    block, found = model.expandable[0], {}

    def watched(starts: SlotStarts, at: int, number: int) -> tuple[float, int]:
        found[at, number] = separates(starts, at, number)
        found["network"] = copy.deepcopy(model)
        found["nearest"] = starts._nearest(at)
        return found[at, number]

    separates = SlotStarts._separates
    for experience in stream[:2]:
        strategy.train(experience)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlotStarts, "_separates", watched)
        strategy.train(stream[2])
    images, labels = images_of(stream[2])
    for number in range(2):
        alone = found["network"]
        alone = copy.deepcopy(alone).eval()
        slot = alone.slot(block)
        slot.adapters = nn.ModuleList([slot.adapters[number]])  # one: no router is asked
        with torch.no_grad():
            features = alone.features(images)
        assert found[block, number] == (pytest.approx(accuracy(features, labels)), 2)
    assert found["nearest"] == 0  # both say the same


def test_a_regime_is_asked_by_the_features_of_its_online_modules(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    options = {"policy": "every_experience", "budget": {"adapters": 9}, "freeze_epochs": 0}
    strategy = build(LAE, tiny_vit, start="knn", lr=0.05, **options)
    stream, asked = make_stream(THREE).train_stream, {}
    separates = strategy._separates
    strategy._separates = lambda regime: asked.setdefault(regime, separates(regime))
    strategy.train(stream[0])
    assert not asked
    strategy.train(stream[1])
    images, labels = images_of(stream[1])
    with torch.no_grad():
        features = tiny_vit(images, strategy.model.experts.of(0)[0])
    assert asked == {0: (pytest.approx(accuracy(features, labels)), 2)}


def test_the_mean_of_states_leaves_whole_numbers_alone() -> None:
    states = [{"w": torch.tensor([1.0, 2.0]) * k, "calls": torch.tensor(k)} for k in (1, 2, 6)]
    found = mean_state(states)
    assert found["w"].tolist() == [3, 6]
    assert found["calls"].item() == 6


@pytest.mark.parametrize(
    ("config", "options", "sentence"),
    [
        (LAEConfig, {"start": "mean"}, "`start` must stay at last with policy never"),
        (
            SEMAConfig,
            {"start": "knn", "policy": "never"},
            "`start` must stay at nearest or fresh with policy",
        ),
        (MOSConfig, {"start": "mean", "policy": "never"}, "`start` must stay at last with policy"),
        (
            MOSConfig,
            {"start": "nearest", "policy": "every_experience"},
            "`start` must be nearest only where detectors are asked",
        ),
        (MOSConfig, {"start": "fresh", "policy": "never"}, "`start` must stay at last with policy"),
        (EASEConfig, {"start": "nearest"}, "option `start`: Input should be 'fresh', 'last'"),
    ],
)
def test_starts_without_a_meaning_are_refused(
    config: Any, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        config().override(options)
