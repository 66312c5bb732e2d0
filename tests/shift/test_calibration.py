"""Thresholds hold the level that they are asked for: neither twice as many false alarms nor half."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from cl_adapters.errors import InputError
from cl_adapters.shift.calibration import mean_threshold
from cl_adapters.shift.class_mmd import ClassSplitDiscrepancy
from cl_adapters.shift.mmd import MaximumMeanDiscrepancy
from cl_adapters.shift.streaming import _adwin, _calibrated, _first_signal, _page_hinkley, _ranks


@pytest.mark.parametrize("level", [0.2, 0.1, 0.04])
@pytest.mark.parametrize("size", [5, 60])
def test_the_mean_of_normal_scores_exceeds_its_threshold_as_often_as_said(
    level: float, size: int
) -> None:
    """Of normal scores the mean's law is known: both tests in it come out at half the level."""
    held = torch.randn(3000, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    threshold = mean_threshold(3 * held + 7, size, level, seed=1)
    scores = (3 * held + 7).numpy()
    error = scores.std(ddof=1) * math.sqrt(1 / size + 1 / len(scores))
    exceeded = float(stats.norm.sf((threshold - scores.mean()) / error))
    # The bootstrap's quantile comes from 2,000 draws; the larger of the two thresholds counts.
    noise = 3 * math.sqrt(level / 2 / 2000)
    assert level / 2 - noise < exceeded < level / 2 + 0.001


def test_skewed_scores_get_a_larger_threshold_than_students() -> None:
    held = torch.from_numpy(np.random.default_rng(0).lognormal(sigma=1.5, size=400))
    scores = held.numpy()
    threshold = mean_threshold(held, 5, 0.02, seed=0)
    by_student = stats.t.ppf(0.99, 399) * scores.std(ddof=1) * math.sqrt(1 / 5 + 1 / 400)
    assert threshold > scores.mean() + 1.05 * by_student
    fresh = np.random.default_rng(1).lognormal(sigma=1.5, size=(20_000, 5)).mean(axis=1)
    assert 0.002 < float((fresh > threshold).mean()) < 0.02


@pytest.mark.parametrize(("level", "above"), [(0.1, 10), (0.05, 5), (0.01, 1)])
def test_mmd_has_the_rank_of_its_level_among_random_splits(level: float, above: int) -> None:
    """By loops over pairs, with the splits that the seed gives."""
    generator = torch.Generator().manual_seed(3)
    known, window = (torch.randn(count, 3, generator=generator) for count in (12, 7))
    detector = MaximumMeanDiscrepancy(3, false_alarm=level, seed=5, permutations=99)
    detector.fit(known)
    verdict = detector.check(window)
    both = torch.cat((detector.reference, window)).double()  # which is in a drawn order
    distances = [[float((a - b).square().sum()) for b in both] for a in both]
    width = float(torch.tensor(distances).flatten().median())

    def between(first: list[int], second: list[int]) -> float:
        total = sum(math.exp(-distances[a][b] / width) for a in first for b in second)
        return total / len(first) / len(second)

    def discrepancy(chosen: list[int]) -> float:
        rest = [row for row in range(len(both)) if row not in chosen]
        return between(rest, rest) + between(chosen, chosen) - 2 * between(rest, chosen)

    draws = torch.Generator().manual_seed(5)
    splits = [list(range(12, 19))]
    splits += [torch.randperm(19, generator=draws)[:7].tolist() for _ in range(99)]
    values = [discrepancy(split) for split in splits]
    assert verdict.score == pytest.approx(values[0])
    assert sum(value > verdict.threshold + 1e-9 for value in values) == above


@pytest.mark.parametrize(
    ("make", "low", "high"), [(_adwin, -0.5, 15.5), (_page_hinkley, 0.0, 90.0)]
)
def test_streams_are_calibrated_to_the_number_of_alarms_that_the_level_allows(
    make, low: float, high: float
) -> None:
    strictness = _calibrated(make, low, high, 50, 40, 0.05)
    rng = np.random.default_rng([50, 40])
    streams = [_ranks(rng.random(50), rng.random(40)) for _ in range(600)]
    alarms = sum(_first_signal(make(strictness), *stream) for stream in streams)
    # 5 % of 601 are 30, 10 % are 60; bisection stops before the most is reached.
    assert 10 <= alarms <= 30


@pytest.mark.parametrize("kind", [MaximumMeanDiscrepancy, ClassSplitDiscrepancy])
def test_a_level_gets_as_many_random_splits_as_it_takes(
    kind: type[MaximumMeanDiscrepancy],
) -> None:
    """No split parts two heaps as the true one does, so that it alone exceeds any level."""
    generator = torch.Generator().manual_seed(3)
    known, window = (torch.randn(count, 3, generator=generator) for count in (12, 10))
    for level in (0.01, 0.001, 1 / 1300):
        detector = kind(3, false_alarm=level)
        detector.fit(known)
        assert detector.check(window + 50).fired, level
    with pytest.raises(InputError, match="`false_alarm` must be at least 1e-05 .* got 1e-06"):
        kind(3, false_alarm=1e-6)
