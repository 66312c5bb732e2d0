"""SEMA watched as a whole: paths, frozen features beside adapted ones, a classifier for each path."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.heads.by_path import PathClassifiers
from cl_adapters.records.event_kinds import Active, Growth
from cl_adapters.strategies.sema import SEMA
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.trained_sema import TWO, Scripted, adapters_by_block, build, snapshot

WHOLE = {"watch": "network", "detector": "scripted", "classifiers": "both", "beside": True}


def _grown(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted], **options: Any
) -> tuple[SEMA, Any]:
    strategy = build(tiny_vit, expandable=2, lr=0.05, **{**WHOLE, **options})
    stream = make_stream([*TWO, [0, 1]])
    strategy.train(stream.train_stream[0])
    scripted.fires = lambda _: True
    strategy.train(stream.train_stream[1])
    scripted.fires = lambda question: question % 2 == 1  # the first detector knows the third
    scripted.asked.clear()
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
    held = sum(
        value.numel() for each in [*own, classes.paths[1]] for value in each.state_dict().values()
    )
    groups = 2 * (64 + 1 + 2) + 2 * 2  # of the regimes' discriminant; what groups of the path are
    assert growth.parameters == held + groups + 1  # the detector's only number
