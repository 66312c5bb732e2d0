"""RanPAC against scikit-learn and plain formulas; the conformance suite runs in `checks/test_suite.py`."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as PlainRidge

from cl_adapters.errors import InputError
from cl_adapters.heads.ridge import STRENGTHS, RidgeHead
from cl_adapters.records.event_kinds import Ridge
from cl_adapters.strategies.checks.trial import Run, TinyStream, Trial
from cl_adapters.strategies.ranpac import RanPAC, RanPACConfig
from cl_adapters.vit.checks import tiny_backbone

SMALL = {"projections": 60}
PLAIN = {**SMALL, "first_session": False}


def strengths(run: Run) -> list[float]:
    return [each.strength for events in run.events for each in events if isinstance(each, Ridge)]


@pytest.mark.parametrize("options", [PLAIN, {**SMALL, "lr": 0.5}])
def test_the_classifier_is_the_ridge_regression_over_all_images_so_far(
    options: dict[str, Any],
) -> None:
    trial, stream = Trial(RanPAC, options), TinyStream()
    strategy = trial.build()
    run = trial.train(strategy, stream)
    images, labels, tested = (
        torch.cat([each.tensors[part] for each in sets])
        for sets, part in ((stream.train_sets, 0), (stream.train_sets, 1), (stream.test_sets, 0))
    )
    network, weight = tiny_backbone(), strategy.model.weight.double()
    first = strategy.model.first
    adapters = None if first is None else first.adapters.modules_apart().eval()
    with torch.no_grad():
        rows, asked = (torch.relu(network(x, adapters).double() @ weight) for x in (images, tested))
    plain = PlainRidge(alpha=strengths(run)[-1], fit_intercept=False, solver="svd")
    plain.fit(rows.numpy(), np.eye(7)[labels.numpy()])
    np.testing.assert_allclose(run.outputs[-1].numpy() / 10, plain.predict(asked), atol=1e-4)
    for state in run.states:
        assert torch.equal(state["weight"].double(), weight)  # never trained


def test_the_first_session_is_over_after_the_first_experience() -> None:
    run = Trial(RanPAC, {**SMALL, "lr": 0.5}).straight
    first, *later = ({k: v for k, v in s.items() if k.startswith("first.")} for s in run.states)
    fresh = RanPAC.build_model(tiny_backbone(), Trial(RanPAC, SMALL).config, 0).first
    assert not torch.equal(first["first.adapters.up"], fresh.adapters.up)
    for state in later:
        assert all(torch.equal(state[name], first[name]) for name in first)
    # The head that it was trained with leaves no trace in the answers.
    strategy, stream = run.strategy, TinyStream()
    before = {key: value.clone() for key, value in strategy.learned_state().items()}
    with torch.no_grad():
        for value in strategy.model.first.head.parameters():
            value.fill_(3.0)
    assert torch.equal(Trial(RanPAC).evaluate(strategy, stream), run.outputs[-1])
    strategy.model.load_state_dict(before, strict=False)


def test_without_a_first_session_nothing_is_held_or_trained_beside_the_regression() -> None:
    run = Trial(RanPAC, PLAIN).straight
    assert sorted(run.states[-1]) == [
        "head.cross", "head.gram", "head.is_seen", "head.weight", "weight",
    ]  # fmt: skip
    assert not run.strategy.learns_by_gradient
    assert run.strategy.num_steps == 0 or list(run.strategy.phases()) == []


def test_the_strength_looks_at_its_own_experience_alone() -> None:
    late = ((1, 4), (2, 5, 6))
    one, two = (
        strengths(Trial(RanPAC, PLAIN).train(Trial(RanPAC, PLAIN).build(), stream))
        for stream in (
            TinyStream(experiences=((3, 0), *late)),
            TinyStream(experiences=((0, 3), *late), seed=0, inverted=(0,)),
        )
    )
    assert one[1:] == two[1:]


def test_answers_by_cosine_differ_from_the_regressions() -> None:
    # G = diag(1, 4), C = diag(1, 2), lambda = 1: weights diag(0.5, 0.4); h = (0.8, 1.0).
    rows, asked = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.8, 1.0]])
    found = []
    for normalise_columns in (False, True):
        head = RidgeHead(2, scale=1.0, normalise_columns=normalise_columns)
        head.add_classes([0, 1])
        head.add(rows, torch.tensor([0, 1]))
        head.solve(1.0)
        found.append(head(asked)[0].tolist())
    assert found[0] == pytest.approx([0.40, 0.40], abs=5e-3)
    assert found[1] == pytest.approx([0.62, 0.78], abs=5e-3)
    strategy = RanPAC(
        backbone=tiny_backbone(), config=RanPACConfig(projections=5, normalise_columns=True)
    )
    assert strategy.model.head.normalise_columns


def test_a_large_strength_gives_sums_by_class() -> None:
    rows, targets = torch.rand(9, 5), torch.arange(9) % 3
    head = RidgeHead(5, scale=1.0)
    head.add_classes(range(3))
    head.add(rows, targets)
    head.solve(1e6)
    sums = torch.stack([rows[targets == each].sum(dim=0) for each in range(3)])
    torch.testing.assert_close(head.weight * 1e6, sums, rtol=1e-4, atol=1e-4)


def test_the_strength_is_chosen_or_where_nothing_can_be_held_out_the_option() -> None:
    options = {**PLAIN, "strength": 3.5}  # of which no choice is a power of ten
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


def test_the_authors_width_is_an_option() -> None:
    assert RanPACConfig.official() == RanPACConfig(projections=10_000, peft_scale=0.1)
    assert RanPACConfig().first_session


def test_more_projections_than_memory_holds_are_refused_with_what_they_take() -> None:
    with pytest.raises(
        InputError, match=r"on 4,000,000 features must fit into .* \d+ GB, got 128,000 GB"
    ):
        RanPAC(backbone=tiny_backbone(), config=RanPACConfig(projections=4_000_000))
