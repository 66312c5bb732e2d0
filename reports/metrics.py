"""Accuracy and calibration, computed from a table of predictions.

Accuracies are in percent. R[t, i] is the accuracy on the test samples of experience i after
training experience t, both counted from 0; T is the last experience. Every mean is over the
experiences whose rows exist: a cell that was never evaluated is NaN and takes part in nothing.
"""

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = [
    "ECE_BINS",
    "accuracy_matrix",
    "class_accuracy",
    "confidence_bins",
    "ece",
    "micro_accuracy",
    "task_mean_accuracy",
]

ECE_BINS: Final = 15

Floats = NDArray[np.float64]


def _correct(predictions: pd.DataFrame) -> NDArray[np.bool_]:
    is_right = predictions["prediction"].to_numpy() == predictions["target"].to_numpy()
    return np.asarray(is_right, dtype=np.bool_)


def _percent(hits: NDArray[Any], counts: NDArray[Any]) -> Floats:
    share = np.full(counts.shape, np.nan)
    np.divide(100.0 * hits, counts, out=share, where=counts > 0)
    return share


def accuracy_matrix(predictions: pd.DataFrame) -> Floats:
    """Returns R[t, i] in percent, NaN where nothing was evaluated.

    Args:
        predictions: Rows as in `cl_adapters.records.tables.PREDICTION_COLUMNS`, at least one.

    Shape:
        (T + 1, I) with I >= T + 1; cells above the diagonal are NaN unless a run was also
        evaluated on experiences that it had not yet learned.

    Example:
        >>> columns = ["experience", "target_experience", "target", "prediction"]
        >>> rows = [[0, 0, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1]]
        >>> accuracy_matrix(pd.DataFrame(rows, columns=columns)).tolist()
        [[100.0, nan], [0.0, 100.0]]
    """
    trained = predictions["experience"].to_numpy(np.int64)
    target = predictions["target_experience"].to_numpy(np.int64)
    num_rows = int(trained.max()) + 1
    num_columns = max(num_rows, int(target.max()) + 1)
    cell = trained * num_columns + target
    counts = np.bincount(cell, minlength=num_rows * num_columns)
    hits = np.bincount(cell, weights=_correct(predictions), minlength=num_rows * num_columns)
    return _percent(hits, counts).reshape(num_rows, num_columns)


def micro_accuracy(predictions: pd.DataFrame) -> Floats:
    """Returns, for each t, the percentage of right answers among all samples of classes seen.

    Shape:
        (T + 1,); the last one is `a_last_micro`, the mean is `a_avg_micro`.
    """
    trained = predictions["experience"].to_numpy(np.int64)
    is_seen = predictions["target_experience"].to_numpy(np.int64) <= trained
    size = int(trained.max()) + 1
    counts = np.bincount(trained[is_seen], minlength=size)
    hits = np.bincount(trained[is_seen], weights=_correct(predictions)[is_seen], minlength=size)
    return _percent(hits, counts)


def task_mean_accuracy(matrix: Floats) -> Floats:
    """Returns, for each t, the mean of R[t, i] over the experiences i <= t.

    Shape:
        (T + 1, I) -> (T + 1,); the last one is `a_last_task_mean`, the mean is `a_avg_task_mean`.

    Example:
        >>> task_mean_accuracy(np.array([[80.0, np.nan], [60.0, 90.0]])).tolist()
        [80.0, 75.0]
    """
    rows = (row[: t + 1] for t, row in enumerate(matrix))
    known = [row[~np.isnan(row)] for row in rows]
    return np.array([row.mean() if row.size else np.nan for row in known])


def class_accuracy(predictions: pd.DataFrame) -> "pd.Series[float]":
    """Returns the accuracy of each class seen, in percent, after the last experience."""
    last = predictions[predictions["experience"] == predictions["experience"].max()]
    last = last[last["target_experience"] <= last["experience"]]
    is_right = pd.Series(100.0 * _correct(last), index=last.index)
    return is_right.groupby(last["target"]).mean().rename("accuracy")


def confidence_bins(confidence: Floats) -> NDArray[np.int64]:
    """Returns the bin of each confidence, counted from 0; see `ece`.

    Example:
        >>> confidence_bins(np.array([0.0, 0.05, 0.2, 1.0])).tolist()
        [0, 0, 2, 14]
    """
    scaled = np.ceil(confidence.astype(np.float64) * ECE_BINS).astype(np.int64)
    return np.clip(scaled, 1, ECE_BINS) - 1


def ece(confidence: Floats, is_correct: NDArray[np.bool_]) -> float:
    """Returns the expected calibration error in percent, over 15 bins of equal width on [0, 1].

    A confidence c falls into bin ceil(15 c), and 0 into the first; each bin weighs by its samples.

    Args:
        confidence: Probability that the model gave to its own prediction.
        is_correct: Whether that prediction was right.

    Example:
        >>> round(ece(np.array([0.9, 0.9]), np.array([True, False])), 6)
        40.0
    """
    if confidence.size == 0:
        return float("nan")
    gap = np.bincount(
        confidence_bins(confidence), weights=confidence - is_correct, minlength=ECE_BINS
    )
    return float(100.0 * np.abs(gap).sum() / confidence.size)
