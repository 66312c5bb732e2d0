"""What is lost between learning an experience and the end, in every definition the field mixes.

R[t, i] is the accuracy matrix of `metrics.accuracy_matrix`, T its last row. Each value is a mean
over the experiences i < T for which all its terms were evaluated, NaN if there is none, as in a
stream of one experience.

References:
    `forgetting_from_best`: LAMDA-PILOT, PyCIL, Mammoth (the maximum includes T).
    `forgetting_from_best_before`: Chaudhry et al., Riemannian Walk, ECCV 2018, arXiv 1801.10112.
    `forgetting_from_first`: Avalanche.
    `bwt`, `fwt_without_baseline`: Lopez-Paz and Ranzato, Gradient Episodic Memory, NeurIPS 2017,
    arXiv 1706.08840.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "bwt",
    "forgetting_from_best",
    "forgetting_from_best_before",
    "forgetting_from_first",
    "forgetting_over_time",
    "fwt_without_baseline",
]

Floats = NDArray[np.float64]


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _best_before(matrix: Floats) -> Floats:
    # max over i <= t < T of R[t, i]; what a model knew before it was taught does not count.
    last = matrix.shape[0] - 1
    best = np.full(last, np.nan)
    for experience in range(last):
        known = matrix[experience:last, experience]
        known = known[~np.isnan(known)]
        if known.size:
            best[experience] = known.max()
    return best


def forgetting_from_best_before(matrix: Floats) -> float:
    """Returns mean over i < T of max over i <= t < T of R[t, i], minus R[T, i]; may be negative.

    Example:
        >>> example = np.array([[80, 0, 0, 0], [85, 70, 0, 0], [82, 75, 60, 0], [70, 72, 65, 90.0]])
        >>> round(forgetting_from_best_before(example), 2)
        4.33
    """
    last = matrix.shape[0] - 1
    return _mean(_best_before(matrix) - matrix[last, :last])


def forgetting_from_best(matrix: Floats) -> float:
    """Returns mean over i < T of max over i <= t <= T of R[t, i], minus R[T, i]; never negative.

    Example:
        >>> example = np.array([[80, 0, 0, 0], [85, 70, 0, 0], [82, 75, 60, 0], [70, 72, 65, 90.0]])
        >>> forgetting_from_best(example)
        6.0
    """
    last = matrix.shape[0] - 1
    return _mean(np.maximum(_best_before(matrix) - matrix[last, :last], 0.0))


def forgetting_from_first(matrix: Floats) -> float:
    """Returns mean over i < T of R[i, i] - R[T, i]; may be negative.

    Example:
        >>> example = np.array([[80, 0, 0, 0], [85, 70, 0, 0], [82, 75, 60, 0], [70, 72, 65, 90.0]])
        >>> forgetting_from_first(example)
        1.0
    """
    last = matrix.shape[0] - 1
    return _mean(np.diagonal(matrix)[:last] - matrix[last, :last])


def bwt(matrix: Floats) -> float:
    """Returns backward transfer, mean over i < T of R[T, i] - R[i, i]."""
    return 0.0 - forgetting_from_first(matrix)


def fwt_without_baseline(matrix: Floats) -> float:
    """Returns forward transfer, mean over i >= 1 of R[i - 1, i], with nothing subtracted.

    GEM's definition subtracts the accuracy of an untrained model, which records do not hold; hence
    the name. NaN if no experience was evaluated before it was learned.
    """
    return _mean(np.diagonal(matrix, offset=1))


def forgetting_over_time(matrix: Floats) -> Floats:
    """Returns `forgetting_from_best` as it stood after each experience, NaN after the first.

    Shape:
        (T + 1, I) -> (T + 1,)
    """
    return np.array([forgetting_from_best(matrix[: t + 1]) for t in range(matrix.shape[0])])
