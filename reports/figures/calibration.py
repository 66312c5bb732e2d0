"""How well a method knows what it knows: reliability, and how it changes over experiences."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cl_adapters.reports.experience_names import experience_label
from cl_adapters.reports.figures.parts import (
    Titles,
    draw_curve,
    draw_frame,
    legend_below,
    short_label,
    two_panels,
)
from cl_adapters.reports.figures.seams import draw_seams, experience_seams
from cl_adapters.reports.figures.ticks import data_ticks
from cl_adapters.reports.groups import Group, Row
from cl_adapters.reports.looks import COLOURS, CurveStyle
from cl_adapters.reports.seeds import mean_interval

__all__ = ["CALIBRATION_VALUES", "calibration_curves", "calibration_figure"]

CALIBRATION_VALUES: Final = ("accuracy", "confidence", "ece")
_PERCENTS: Final = (0, 20, 40, 60, 80, 100)
_LEAST: Final = 10  # test images below which a bin says too little to be drawn
_LOOKS: Final = {
    "accuracy": ("accuracy", CurveStyle(COLOURS[0], "o", "-")),
    "confidence": ("mean confidence", CurveStyle(COLOURS[1], "s", "--")),
    "ece": ("ECE", CurveStyle(COLOURS[3], "^", "-.")),
}
_TIMES: Final = (CurveStyle(COLOURS[2], "D", ":"), CurveStyle(COLOURS[4], "s", "--"),
                 CurveStyle(COLOURS[6], "o", "-"))  # fmt: skip


def calibration_curves(bins: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Returns accuracy, mean confidence and ECE after each experience, in percent.

    Args:
        bins: As in `detail.Detail`.

    Shape:
        bins: (T, 15, 3). Output: (T,) each, NaN where nothing was evaluated.
    """
    total = bins.sum(axis=1)
    gap = np.abs(bins[:, :, 2] - bins[:, :, 1]).sum(axis=1)
    sums = {"accuracy": total[:, 1], "confidence": total[:, 2], "ece": gap}
    shares = {}
    for name, values in sums.items():
        share = np.full(len(bins), np.nan)
        np.divide(100 * values, total[:, 0], out=share, where=total[:, 0] > 0)
        shares[name] = share
    return shares


def calibration_figure(group: Group, row: Row) -> Figure:
    """Draws accuracy against confidence at three times, and both with their gap over all.

    Args:
        group: What the method is compared with.
        row: The method.
    """
    title = f"{short_label(row.label, 44)}, {group.seeds_text(row)}"
    figure, left, right = two_panels(group, title, 0.45)
    bins = np.sum([run.detail.bins for run in row.runs], axis=0)
    _reliability(left, bins, row.experience_names or [""] * len(bins))
    per_run = [calibration_curves(run.detail.bins) for run in row.runs]
    for name, (label, style) in _LOOKS.items():
        interval = mean_interval(np.stack([values[name] for values in per_run]))
        x = np.arange(1, interval.mean.size + 1).tolist()
        draw_curve(right, x, interval, style, limits=(0, 100), label=label)
    last = len(per_run[0]["ece"])
    right.set_xlim(1 - 0.03 * last, last + 0.03 * last)
    right.set_ylim(-2, 102)
    times = data_ticks(range(1, last + 1), 9)
    titles = Titles("Over experiences", "Number of experiences learned", "Test images (%)")
    draw_frame(right, times, _PERCENTS, titles)
    draw_seams(right, experience_seams([row]))
    legend_below(left, 1)
    legend_below(right, 3)
    return figure


def _reliability(axes: Axes, bins: NDArray[np.float64], names: Sequence[str]) -> None:
    axes.plot([0, 100], [0, 100], color="#777777", linewidth=1, label="_ideal")
    last = len(bins) - 1
    times = sorted({0, last // 2, last})
    for t, style in zip(times, _TIMES[-len(times) :], strict=True):
        samples, hits, confidence = bins[t].T
        shown = samples >= _LEAST
        axes.plot(
            100 * confidence[shown] / samples[shown],
            100 * hits[shown] / samples[shown],
            color=style.colour,
            marker=style.marker,
            linestyle=style.line,
            markersize=4,
            label=f"after experience {experience_label(t + 1, names[t], 9)}",
        )
    axes.set_xlim(-2, 102)
    axes.set_ylim(-2, 102)
    draw_frame(axes, _PERCENTS, _PERCENTS, Titles("Reliability", "Confidence (%)", "Accuracy (%)"))
