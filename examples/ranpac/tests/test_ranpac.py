"""RanPAC against plain formulas and the rules of every strategy."""

import pytest
import torch
from cl_adapters_ranpac.ranpac import RanPAC, RanPACConfig

from cl_adapters.strategies.checks.suite import STRATEGY_CHECKS, check_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.vit.checks import tiny_backbone

SMALL = {"projections": 60}


@pytest.mark.parametrize("name", STRATEGY_CHECKS)
def test_ranpac_is_sound(name: str) -> None:
    assert check_strategy(RanPAC, options=SMALL, checks=[name]) == []


def test_the_classifier_is_the_ridge_regression_over_all_images_so_far() -> None:
    trial, stream = Trial(RanPAC, SMALL), TinyStream()
    strategy = trial.build()
    outputs = trial.train(strategy, stream).outputs[-1]
    images, labels, tested = (
        torch.cat([each.tensors[part] for each in sets])
        for sets, part in ((stream.train_sets, 0), (stream.train_sets, 1), (stream.test_sets, 0))
    )
    network, weight = tiny_backbone(), strategy.model.weight.double()
    with torch.no_grad():
        rows, asked = (torch.relu(network(x).double() @ weight) for x in (images, tested))
    truth = torch.nn.functional.one_hot(labels).double()
    strength = next(e["strength"] for e in reversed(trial_events(trial)) if e["event"] == "ridge")
    solved = torch.linalg.inv(rows.T @ rows + strength * torch.eye(60).double()) @ rows.T @ truth
    expected = strategy.config.scale * asked @ solved
    assert torch.allclose(outputs.double(), expected, atol=1e-3)


def trial_events(trial: Trial) -> list[dict[str, object]]:
    return [event for events in trial.straight.events for event in events]


def test_projections_are_drawn_from_the_seed() -> None:
    one, two, other = (RanPAC(backbone=tiny_backbone(), config=RanPACConfig(projections=9), seed=s)
                       for s in (1, 1, 2))  # fmt: skip
    assert torch.equal(one.model.weight, two.model.weight)
    assert not torch.equal(one.model.weight, other.model.weight)
