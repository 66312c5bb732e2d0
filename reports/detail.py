"""What is looked at of one run beyond its scores: classes, confusions, calibration, time.

Everything is counted when the predictions are read, so that they need not be kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cl_adapters.records.event_kinds import Evaluation, Event, Phase
from cl_adapters.reports.metrics import ECE_BINS, confidence_bins

__all__ = ["Detail", "measure_detail", "phase_seconds"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Detail:
    """Counts of one run.

    Attributes:
        class_curves: [t, c] is the accuracy in percent on class c after experience t; NaN before
            the class was learned.
        confusion: Target, prediction and number of test samples, a row each pair that occurs after
            the last experience.
        bins: [t, b] holds samples, right ones and the sum of confidences of the samples whose
            confidence after experience t lies in bin b of `metrics.ece`.
        phases: Seconds by name of the phase, evaluations as `evaluation`.
    """

    class_curves: Floats
    confusion: NDArray[np.int64]
    bins: Floats
    phases: dict[str, float]


def measure_detail(
    predictions: pd.DataFrame, num_classes: int, phases: Mapping[str, float]
) -> Detail:
    """Counts what `Detail` holds, over the test samples of the classes seen.

    Args:
        predictions: Rows as in `cl_adapters.records.tables.PREDICTION_COLUMNS`, at least one.
        num_classes: Number of classes of the stream.
        phases: Seconds by name of the phase.
    """
    seen = predictions[predictions["target_experience"] <= predictions["experience"]]
    trained = seen["experience"].to_numpy(np.int64)
    target = seen["target"].to_numpy(np.int64)
    guess = seen["prediction"].to_numpy(np.int64)
    is_right = (target == guess).astype(np.float64)
    last = int(predictions["experience"].max())
    shape = (last + 1, num_classes)
    hits = _sums(trained, target, is_right, shape)
    counts = _sums(trained, target, np.ones_like(is_right), shape)
    curves: Floats = np.full(shape, np.nan)
    np.divide(100.0 * hits, counts, out=curves, where=counts > 0)
    is_last = trained == last
    pairs, numbers = np.unique(
        np.stack([target[is_last], guess[is_last]], axis=1), axis=0, return_counts=True
    )
    confidence = seen["confidence"].to_numpy(np.float64)
    place = confidence_bins(confidence)
    sizes = (last + 1, ECE_BINS)
    weights = (np.ones_like(confidence), is_right, confidence)
    return Detail(
        class_curves=curves,
        confusion=np.concatenate([pairs, numbers[:, None]], axis=1),
        bins=np.stack([_sums(trained, place, weight, sizes) for weight in weights], axis=2),
        phases=dict(phases),
    )


def _sums(
    rows: NDArray[np.int64], columns: NDArray[np.int64], weights: Floats, shape: tuple[int, int]
) -> Floats:
    cell = rows * shape[1] + columns
    size = shape[0] * shape[1]
    return np.bincount(cell, weights=weights, minlength=size).reshape(shape).astype(np.float64)


def phase_seconds(events: Sequence[Event]) -> dict[str, float]:
    """Returns the seconds of each phase of training by name, and of all evaluations.

    Example:
        >>> phase = Phase(experience=0, seconds=1.5, name="train", images=9)
        >>> phase_seconds([phase, phase, Evaluation(experience=0, seconds=2.0, images=4)])
        {'train': 3.0, 'evaluation': 2.0}
    """
    seconds: dict[str, float] = {}
    for event in events:
        if isinstance(event, Phase | Evaluation):
            name = event.name if isinstance(event, Phase) else "evaluation"
            seconds[name] = seconds.get(name, 0.0) + event.seconds
    return seconds
