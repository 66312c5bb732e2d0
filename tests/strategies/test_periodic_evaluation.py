"""Evaluation before and inside training: chance before the first class, and no trace of it."""

import math
import random
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.evaluation.metrics import accuracy_metrics, confusion_matrix_metrics, loss_metrics
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin

from cl_adapters.randomness import seed_random_states
from cl_adapters.strategies import STRATEGIES
from cl_adapters.strategies.core.output import as_output
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.marks import by_default
from tests.strategies.test_every_strategy import build

EXPERIENCES = [[3, 0], [1, 2]]


def evaluator() -> EvaluationPlugin:
    metrics = accuracy_metrics(stream=True), loss_metrics(stream=True)
    return EvaluationPlugin(
        *metrics, confusion_matrix_metrics(stream=True, save_image=False), loggers=[BaseLogger()]
    )


def trained(name: str, vit: AdaptedViT, benchmark: Any, **evaluation: Any) -> Any:
    strategy = build(name, vit, epochs=2, evaluator=evaluator(), **evaluation)
    seed_random_states(5)  # of what draws from the global states
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[benchmark.test_stream])
    return strategy


@pytest.mark.parametrize("name", STRATEGIES)
def test_before_the_first_experience_it_answers_by_chance(
    name: str, tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    benchmark = make_stream([[0, 1, 2], [4, 3]])
    strategy = build(name, tiny_vit, evaluator=evaluator())
    before = {key: value.clone() for key, value in strategy.learned_state().items()}
    results = strategy.eval(benchmark.test_stream)
    assert results["Top1_Acc_Stream/eval_phase/test_stream"] == pytest.approx(1 / 5)
    expected = (3 * math.log(3) + 2 * math.log(5)) / 5  # of as many classes as labels go up to
    assert results["Loss_Stream/eval_phase/test_stream"] == pytest.approx(expected, rel=1e-5)
    after = strategy.learned_state()
    assert list(before) == list(after)
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize(
    ("name", "mode"),
    by_default(
        [*((name, "epoch") for name in STRATEGIES), *product(["mos", "simplecil"], ["iteration"])],
        [("sema", "epoch"), ("lae", "epoch"), ("mos", "iteration"), ("simplecil", "iteration")],
    ),
)
def test_training_is_the_same_whoever_evaluates_inside_it(
    name: str, mode: str, tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    benchmark = make_stream(EXPERIENCES, per_class=6)
    plain = trained(name, tiny_vit, benchmark)
    asked = trained(name, tiny_vit, benchmark, eval_every=1, peval_mode=mode)
    before, after = plain.learned_state(), asked.learned_state()
    assert list(before) == list(after)
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        one, two = (as_output(each.model.eval()(images)).logits for each in (plain, asked))
    assert torch.equal(one, two)


def test_what_draws_from_the_global_states_draws_the_same_whoever_evaluates(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    benchmark = make_stream(EXPERIENCES, per_class=6)
    drawn = []
    for evaluation in ({}, {"eval_every": 1}):
        trained("simplecil", tiny_vit, benchmark, **evaluation)
        drawn.append((torch.rand(3).tolist(), random.random(), np.random.random()))  # noqa: NPY002
    assert drawn[0] == drawn[1]
