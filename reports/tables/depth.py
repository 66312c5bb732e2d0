"""What the figures of one method are drawn from, as CSV."""

from collections.abc import Iterator

import numpy as np

from cl_adapters.reports.figures.calibration import CALIBRATION_VALUES, calibration_curves
from cl_adapters.reports.groups import Group
from cl_adapters.reports.load import Run
from cl_adapters.reports.tables.markup import csv_text

__all__ = ["depth_files"]


def depth_files(group: Group) -> dict[str, str]:
    """Returns, by file name, a row a value of every seed of every method."""
    parts = {
        "class-curves": (["experience", "position", "class", "accuracy"], _class_curves),
        "confusion": (["class", "prediction", "test_samples"], _confusion),
        "calibration": (["experience", *CALIBRATION_VALUES], _calibration),
        "reliability": (["experience", "bin", "test_samples", "right", "confidence"], _reliability),
        "phases": (["phase", "seconds"], _phases),
    }
    files = {}
    for name, (header, lines) in parts.items():
        rows = (
            [row.protocol, row.label, run.record.seed, *line]
            for row in group.rows
            for run in row.runs
            for line in lines(run)
        )
        files[f"{group.slug}-{name}.csv"] = csv_text(["protocol", "method", "seed", *header], rows)
    return files


def _class_curves(run: Run) -> Iterator[list[object]]:
    curves = run.detail.class_curves
    for t, position in np.argwhere(~np.isnan(curves)).tolist():
        yield [t, position, run.record.classes[position], curves[t, position]]


def _confusion(run: Run) -> Iterator[list[object]]:
    for target, guess, number in run.detail.confusion.tolist():
        yield [run.record.classes[target], run.record.classes[guess], number]


def _calibration(run: Run) -> Iterator[list[object]]:
    curves = calibration_curves(run.detail.bins)
    for t in range(len(run.detail.bins)):
        yield [t, *(curves[name][t] for name in CALIBRATION_VALUES)]


def _reliability(run: Run) -> Iterator[list[object]]:
    bins = run.detail.bins
    for t, place in np.argwhere(bins[:, :, 0] > 0).tolist():
        samples, hits, confidence = bins[t, place].tolist()
        yield [t, place, int(samples), int(hits), confidence / samples]


def _phases(run: Run) -> Iterator[list[object]]:
    yield from ([name, seconds] for name, seconds in run.detail.phases.items())
