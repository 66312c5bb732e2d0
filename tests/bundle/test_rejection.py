"""The threshold of a rate against its definition, and what a rule of rejection is made of."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from cl_adapters.bundle.rejection import Rejection, check_rate
from cl_adapters.errors import InputError
from cl_adapters.heads.unknown import make_score


def rule(held_out: list[float], name: str = "mahalanobis") -> Rejection:
    score = make_score(name, 2)
    points = torch.tensor([[0.0, 1.0], [0.0, 2.0], [4.0, 1.0], [5.0, 3.0]])
    score.add(points, torch.tensor([0, 0, 1, 1]))
    return Rejection(name, score, torch.tensor(sorted(held_out), dtype=torch.float64))


@pytest.mark.parametrize("count", [1, 9, 10, 19, 100])
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3, 0.5, 0.99])
def test_a_threshold_is_the_lowest_that_keeps_the_rate(count: int, rate: float) -> None:
    values = np.random.default_rng(count).normal(size=count).tolist()
    # A new image is as likely to lie in any of the M + 1 gaps; the one above all counts as above.
    keeping = [
        value
        for value in values
        if (sum(other > value for other in values) + 1) / (count + 1) <= rate + 1e-12
    ]
    if not keeping:
        with pytest.raises(InputError, match=f"at least {math.ceil(1 / rate) - 1} held-out"):
            rule(values).threshold(rate)
        return
    assert rule(values).threshold(rate) == min(keeping)


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60),
    st.tuples(*2 * [st.floats(0, 1, exclude_min=True, exclude_max=True)]),
)
@example([1.0, 2.0, 3.0], (0.5, 0.999999999999))
@example([1.0, 2.0, 3.0], (0.75, math.nextafter(1, 0)))
def test_a_higher_rate_rejects_no_fewer(values: list[float], rates: tuple[float, float]) -> None:
    known = rule(values)
    shares = []
    for rate in sorted(rates):
        try:
            threshold = known.threshold(rate)
        except InputError:  # too few images for so small a rate
            threshold = math.inf
        shares.append(sum(value > threshold for value in values))
    assert shares == sorted(shares)
    # The largest rate rejects all but those at the lowest score.
    assert known.threshold(math.nextafter(1, 0)) == min(values)


def test_so_many_new_images_are_rejected_as_was_asked() -> None:
    source = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        threshold = rule(source.exponential(size=59).tolist()).threshold(0.1)
        shares.append(math.exp(-threshold))  # of new ones, exactly
    # 60 gaps, of which the upper 6 lie above the threshold.
    assert np.mean(shares) == pytest.approx(0.1, abs=3 * np.std(shares) / math.sqrt(400))


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 7.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match=r"must lie in \(0, 1\), got"):
        check_rate(rate)
    with pytest.raises(InputError, match=r"must lie in \(0, 1\), got"):
        rule([1.0, 2.0]).threshold(rate)


def test_too_few_held_out_images_are_refused_with_the_number_that_would_do() -> None:
    with pytest.raises(InputError, match=r"at least 99 held-out training images, got 98"):
        rule([1.0] * 98).threshold(0.01)
    assert rule([1.0] * 99).threshold(0.01) == 1.0


def test_a_state_brings_back_the_rule_and_other_tensors_are_refused() -> None:
    known = rule([1.0, 3.0, 2.0])
    again = Rejection.of(known.describe(), known.state(), "bundle")
    rows = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.scores(rows, rows), known.scores(rows, rows))
    assert again.threshold(0.5) == known.threshold(0.5) == 2.0

    def refused(match: str, values: dict[str, object], state: dict[str, torch.Tensor]) -> None:
        with pytest.raises(InputError, match=match):
            Rejection.of({**known.describe(), **values}, {**known.state(), **state}, "bundle")

    refused("bundle must fit the score 'cosine'", {"score": "cosine"}, {})
    refused("unknown score 'cosin'; did you mean 'cosine'", {"score": "cosin"}, {})
    refused("bundle must hold the statistics of a score", {"num_features": 0}, {})
    refused("bundle must hold finite", {}, {"held_out": torch.tensor([math.nan])})
