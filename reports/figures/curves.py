"""The curves of a comparison: accuracy so far and forgetting, with intervals over seeds."""

import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cl_adapters.reports.definitions import format_number
from cl_adapters.reports.figures.interactive import Chart, Curve, TrainerState, curve_id
from cl_adapters.reports.figures.parts import draw_curve, new_figure, short_label
from cl_adapters.reports.groups import Group, Row

__all__ = [
    "accuracy_figure",
    "curve_chart",
    "curve_labels",
    "draw_curves",
    "forgetting_figure",
    "legend_columns",
]

CurveName = Literal["seen", "forgetting"]

_PERCENT: Final = (0.0, 100.0)
_HEADINGS: Final[dict[CurveName, str]] = {
    "seen": "Accuracy over all classes seen (%)",
    "forgetting": "Forgetting from best (points)",
}
_MANY: Final = 6  # methods beyond which bands would drown the curves


def accuracy_figure(group: Group) -> Figure:
    """Draws the accuracy over all classes seen against their number, with bands over seeds."""
    return _curves(group, "seen")


def forgetting_figure(group: Group) -> Figure:
    """Draws the mean forgetting from best against the progress, with bands."""
    return _curves(group, "forgetting")


def _curves(group: Group, name: CurveName) -> Figure:
    labels = curve_labels(group)
    num_columns = legend_columns(labels)
    figure = new_figure(6.4, 3.9 + 0.22 * -(-len(labels) // num_columns), group)
    lines = draw_curves(figure.subplots(), group, name)
    figure.legend(lines, labels, loc="outside lower center", ncols=num_columns)
    return figure


def curve_labels(group: Group) -> list[str]:
    """Returns what a legend says of each method, in the order of the rows."""
    return [short_label(group.name_of(row), 60) for row in group.rows]


def legend_columns(labels: Sequence[str]) -> int:
    """Returns how many labels stand side by side below a figure, 1 or 2."""
    return 1 if max(map(len, labels)) > 32 else 2


def draw_curves(axes: Axes, group: Group, name: CurveName) -> list[Line2D]:
    """Draws a curve a method, with bands over seeds, and returns the lines.

    Args:
        axes: What to draw on; they get limits and titles, and no legend.
        group: The methods, at least one.
        name: Accuracy over all classes `seen`, or `forgetting` from best.
    """
    lines = []
    for number, row in enumerate(group.rows):
        gid = curve_id(number, "line")
        interval, style = row.interval(name), group.looks[row.label]
        line, band = draw_curve(axes, row.progress, interval, style, limits=_PERCENT, gid=gid)
        lines.append(line)
        if band is not None:
            band.set_gid(curve_id(number, "band"))
            band.set_alpha(0.12 if len(group.rows) <= _MANY else 0.06)
    axes.set_xlabel(group.progress_heading)
    axes.set_ylabel(_HEADINGS[name])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.set_ylim(*((_lowest(group), 101.0) if name == "seen" else (0, None)))
    return lines


def _lowest(group: Group) -> float:
    # From 0, unless every curve and band stays in the upper half.
    intervals = [row.interval("seen") for row in group.rows]
    lows = [interval.mean - np.nan_to_num(interval.half_width) for interval in intervals]
    lowest = min(float(np.nanmin(low)) for low in lows)
    return 0.0 if lowest < 50 else float(10 * np.floor((lowest - 8) / 10))


def curve_chart(group: Group, name: str) -> Chart:
    """Returns what the page shows of one of these figures.

    Args:
        group: The methods.
        name: `seen` or `forgetting`.
    """
    return Chart(
        by="x",
        curves=[
            Curve(
                number=number,
                label=group.name_of(row),
                look=group.looks[row.label],
                points=_points(group, row, name),
            )
            for number, row in enumerate(group.rows)
        ],
    )


def _points(group: Group, row: Row, name: str) -> list[TrainerState]:
    interval, unit = row.interval(name), group.progress_heading.removeprefix("Number of ")
    points = []
    for place, mean, half in zip(row.progress, interval.mean, interval.half_width, strict=True):
        if not math.isnan(mean):
            spread = "" if math.isnan(half) else f" ± {format_number(float(half), 2)}"
            text = f"{format_number(float(mean), 2)}{spread}"
            points.append(TrainerState(0, place, float(mean), f"{place} {unit}", text))
    return points
