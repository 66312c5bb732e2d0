import math

import numpy as np
import pytest
from scipy import stats

from cl_adapters.reports.seeds import mean_interval


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 40])
def test_interval_equals_scipy(num_seeds: int) -> None:
    values = np.random.default_rng(num_seeds).normal(size=(num_seeds, 4))
    interval = mean_interval(values)
    low, high = stats.t.interval(
        0.95, num_seeds - 1, loc=values.mean(axis=0), scale=stats.sem(values, axis=0)
    )
    np.testing.assert_allclose(interval.mean - interval.half_width, low)
    np.testing.assert_allclose(interval.mean + interval.half_width, high)
    assert interval.num_seeds == num_seeds


def test_interval_by_the_printed_t_table() -> None:
    # t(0.975, 2) = 4.303 in every textbook; s of (1, 2, 3) is 1.
    assert mean_interval(np.array([1.0, 2.0, 3.0])).half_width == pytest.approx(
        4.303 / math.sqrt(3), abs=1e-3
    )


def test_one_seed_has_a_mean_and_no_interval() -> None:
    interval = mean_interval(np.array([[1.0, 2.0]]))
    assert interval.mean.tolist() == [1.0, 2.0]
    assert np.isnan(interval.half_width).all()


def test_a_missing_or_infinite_value_is_not_averaged_over() -> None:
    assert math.isnan(mean_interval(np.array([1.0, np.nan])).mean)
    assert math.isinf(mean_interval(np.array([1.0, np.inf])).mean)
