"""RanPAC against plain formulas; the conformance suite runs in `checks/test_suite.py`."""

import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.heads.ridge import STRENGTHS
from cl_adapters.records.event_kinds import Ridge
from cl_adapters.strategies.checks.trial import Run, TinyStream, Trial
from cl_adapters.strategies.ranpac import RanPAC, RanPACConfig
from cl_adapters.vit.checks import tiny_backbone

SMALL = {"projections": 60}


def strengths(run: Run) -> list[float]:
    return [each.strength for events in run.events for each in events if isinstance(each, Ridge)]


def test_the_classifier_is_the_ridge_regression_over_all_images_so_far() -> None:
    trial, stream = Trial(RanPAC, SMALL), TinyStream()
    strategy = trial.build()
    run = trial.train(strategy, stream)
    images, labels, tested = (
        torch.cat([each.tensors[part] for each in sets])
        for sets, part in ((stream.train_sets, 0), (stream.train_sets, 1), (stream.test_sets, 0))
    )
    network, weight = tiny_backbone(), strategy.model.weight.double()
    with torch.no_grad():
        rows, asked = (torch.relu(network(x).double() @ weight) for x in (images, tested))
    truth = torch.nn.functional.one_hot(labels).double()
    ridge = strengths(run)[-1] * torch.eye(60).double()
    solved = torch.linalg.inv(rows.T @ rows + ridge) @ rows.T @ truth
    expected = strategy.config.scale * asked @ solved
    assert torch.allclose(run.outputs[-1].double(), expected, atol=1e-3)


def test_the_strength_is_chosen_or_where_nothing_can_be_held_out_the_option() -> None:
    options = {**SMALL, "strength": 3.5}  # of which no choice is a power of ten
    for per_class, is_chosen in ((12, True), (2, False)):  # a fifth of four images is none
        trial = Trial(RanPAC, options)
        stream = TinyStream(experiences=((0, 1), (2, 3)), per_class=per_class)
        found = strengths(trial.train(trial.build(), stream))
        assert len(found) == 2
        assert (set(found) <= set(STRENGTHS)) if is_chosen else (found == [3.5, 3.5])


def test_projections_are_drawn_from_the_seed() -> None:
    one, two, other = (
        RanPAC(backbone=tiny_backbone(), config=RanPACConfig(projections=9), seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.model.weight, two.model.weight)
    assert not torch.equal(one.model.weight, other.model.weight)


@pytest.mark.parametrize("options", [{"projections": 0}, {"strength": 0}, {"scale": -1.0}])
def test_bad_options_are_refused(options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(InputError, match=f"option `{name}`: "):
        RanPACConfig().override(options)
