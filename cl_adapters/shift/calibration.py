"""Thresholds for the mean of n scores, from scores of held-out data of the same distribution."""

import math

import numpy as np
from scipy import stats
from torch import Tensor

__all__ = ["mean_threshold"]

_DRAWS = 2000


def mean_threshold(held_out: Tensor, size: int, false_alarm: float, seed: int) -> float:
    """Returns the value that the mean of `size` new scores exceeds with the given probability.

    The larger of two: Student's t with m - 1 degrees of freedom for the difference of the means of
    `size` and of m scores, which counts the error of mean and spread of few held-out scores; and a
    two-sample bootstrap of the same difference, which counts their skew. Both are taken at half the
    level: quantiles of few skewed scores come out too low.

    Args:
        held_out: Scores of m samples, (m,), m at least 2.
        size: Samples in a window, n.
        false_alarm: The probability.
        seed: Seed of the draws.
    """
    scores = held_out.double().cpu().numpy()
    rng = np.random.default_rng([seed, size])
    count = len(scores)
    error = float(scores.std(ddof=1)) * math.sqrt(1 / size + 1 / count)
    by_student = float(stats.t.ppf(1 - false_alarm / 2, count - 1)) * error
    # Multinomial counts in place of indices: one product gives all means.
    window = rng.multinomial(size, np.full(count, 1 / count), _DRAWS) @ scores / size
    reference = rng.multinomial(count, np.full(count, 1 / count), _DRAWS) @ scores / count
    # Draws around a mean of m scores are too narrow by sqrt(1 - 1 / m).
    spread = (window - reference) / np.sqrt(1 - 1 / count)
    by_bootstrap = float(np.quantile(spread, 1 - false_alarm / 2))
    return float(scores.mean() + max(by_student, by_bootstrap))
