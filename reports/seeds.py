"""Means over seeds and their 95 % intervals by Student's t."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

__all__ = ["CONFIDENCE", "Interval", "mean_interval"]

CONFIDENCE: Final = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over seeds, or an array of means.

    Attributes:
        mean: Mean over seeds; NaN where one of them has no value.
        half_width: Half the width of the 95 % interval; NaN with fewer than two seeds.
        num_seeds: Number of seeds.
    """

    mean: NDArray[np.float64]
    half_width: NDArray[np.float64]
    num_seeds: int


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """Returns mean and 95 % interval over the first axis, one entry a seed.

    The half width is t(0.975, n - 1) s / sqrt(n), with s the sample standard deviation.

    Example:
        >>> interval = mean_interval(np.array([1.0, 3.0]))
        >>> float(interval.mean), round(float(interval.half_width), 3)
        (2.0, 12.706)
    """
    num_seeds = values.shape[0]
    with np.errstate(invalid="ignore"):  # an infinite value has a mean and no interval
        mean = np.asarray(values.mean(axis=0))
        if num_seeds < 2:
            half_width = np.full(mean.shape, np.nan)
        else:
            quantile = float(stdtrit(num_seeds - 1, 0.5 + CONFIDENCE / 2))
            spread = values.std(axis=0, ddof=1)
            half_width = np.asarray(quantile * spread / np.sqrt(num_seeds))
    return Interval(mean=mean, half_width=half_width, num_seeds=num_seeds)
