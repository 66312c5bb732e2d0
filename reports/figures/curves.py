"""The curves of a comparison: accuracy so far and forgetting, with intervals over seeds."""

import math
from typing import Any, Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cl_adapters.reports.definitions import format_number
from cl_adapters.reports.figures.end_labels import LINE_HEIGHT, End, end_texts, label_ends
from cl_adapters.reports.figures.interactive import Chart, ChartPoint, Curve, curve_id
from cl_adapters.reports.figures.parts import draw_curve, new_figure
from cl_adapters.reports.figures.seams import draw_seams, progress_seams
from cl_adapters.reports.figures.ticks import set_progress_ticks
from cl_adapters.reports.groups import Group, Row

__all__ = [
    "CurveName",
    "accuracy_figure",
    "curve_chart",
    "curve_size",
    "draw_curves",
    "draw_labelled_curves",
    "forgetting_figure",
    "has_whiskers",
    "intervals_note",
]

CurveName = Literal["seen", "forgetting"]

_PERCENT: Final = (0.0, 100.0)
_HEADINGS: Final[dict[CurveName, str]] = {
    "seen": "Accuracy over all classes seen (%)",
    "forgetting": "Forgetting from best (points)",
}
_MOST_BANDS: Final = 4  # methods beyond which bands would drown the curves
_AROUND: Final = 1.2  # inches of a figure's height at most that are not its axes


def accuracy_figure(group: Group) -> Figure:
    """Draws the accuracy over all classes seen against their number, with its intervals."""
    return _curves(group, "seen")


def forgetting_figure(group: Group) -> Figure:
    """Draws the mean forgetting from best against the progress, with its intervals."""
    return _curves(group, "forgetting")


def _curves(group: Group, name: CurveName) -> Figure:
    width, height = curve_size(group)
    figure = new_figure(width, height, group)
    draw_labelled_curves(figure.subplots(), group, name, height)
    return figure


def curve_size(group: Group) -> tuple[float, float]:
    """Returns width and height in inches of a figure of curves with their names beside them."""
    longest = max(map(len, end_texts(group)))
    height = max(3.8, _AROUND + LINE_HEIGHT * (len(group.rows) + 1))
    return max(6.4, 5.2 + 0.078 * longest), height + (0.28 if group.mixed else 0)


def draw_labelled_curves(axes: Axes, group: Group, name: CurveName, height: float) -> None:
    """Draws a curve a method with its name at its end.

    Args:
        axes: What to draw on, with room on their right.
        group: The methods, at least one.
        name: Accuracy over all classes `seen`, or `forgetting` from best.
        height: Of the figure in inches.
    """
    draw_curves(axes, group, name)
    axes.set_title(intervals_note(group), loc="left", fontsize=8.5, color="#555555")
    ends = []
    for number, (row, text) in enumerate(zip(group.rows, end_texts(group), strict=True)):
        mean = row.interval(name).mean
        known = np.flatnonzero(~np.isnan(mean))
        if known.size:
            place = (row.progress[known[-1]], float(mean[known[-1]]))
            ends.append(End(place, text, group.looks[row.label], curve_id(number, "end")))
    label_ends(axes, ends, height - _AROUND - (0.28 if group.mixed else 0))


def intervals_note(group: Group, kind: str = "") -> str:
    """Returns, for a figure, how many seeds it shows and how their intervals.

    Args:
        group: The methods.
        kind: What an interval is drawn as; empty for what curves have.
    """
    if all(len(row.seeds) < 2 for row in group.rows):
        return f"{group.seeds_note}, no interval"
    kind = kind or ("whisker" if has_whiskers(group) else "band")
    return f"{group.seeds_note}, 95 % interval as a {kind}"


def has_whiskers(group: Group) -> bool:
    """Whether intervals are thin whiskers, as many bands would drown the curves."""
    return len(group.rows) > _MOST_BANDS


def draw_curves(axes: Axes, group: Group, name: CurveName) -> list[Line2D]:
    """Draws a curve a method, with its intervals over seeds, and returns the lines.

    Args:
        axes: What to draw on; they get limits, ticks and titles, and no legend.
        group: The methods, at least one.
        name: Accuracy over all classes `seen`, or `forgetting` from best.
    """
    lines, beside = [], _beside(group)
    for number, row in enumerate(group.rows):
        look: dict[str, Any] = {
            "limits": _PERCENT,
            "whiskers": beside[number],
            "gid": curve_id(number, "line"),
        }
        interval, style = row.interval(name), group.looks[row.label]
        line, band = draw_curve(axes, row.progress, interval, style, **look)
        lines.append(line)
        if band is not None:
            band.set_gid(curve_id(number, "band"))
    axes.set_xlabel(group.progress_heading)
    axes.set_ylabel(_HEADINGS[name])
    set_progress_ticks(axes, group)
    # Room above the highest marker, which would be cut in half.
    top = 101.0 if name == "seen" else 1.04 * axes.get_ylim()[1]
    axes.set_ylim(_lowest(group) if name == "seen" else 0.0, top)
    draw_seams(axes, progress_seams(group.rows))
    return lines


def _beside(group: Group) -> list[float | None]:
    # Whiskers of one place stand side by side, within a quarter of the way to the next.
    if not has_whiskers(group):
        return [None] * len(group.rows)
    places = sorted({place for row in group.rows for place in row.progress})
    gap = min(np.diff(places), default=1)
    return [float(each) for each in np.linspace(-0.12 * gap, 0.12 * gap, len(group.rows))]


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
                label=group.name_among(row),
                look=group.looks[row.label],
                points=_points(group, row, name),
            )
            for number, row in enumerate(group.rows)
        ],
    )


def _points(group: Group, row: Row, name: str) -> list[ChartPoint]:
    interval, unit = row.interval(name), group.progress_heading.removeprefix("Number of ")
    names = group.experience_names or [""] * len(row.progress)
    points = []
    values = zip(row.progress, interval.mean, interval.half_width, names, strict=True)
    for number, (place, mean, half, called) in enumerate(values, start=1):
        if not math.isnan(mean):
            spread = "" if math.isnan(half) else f" ± {format_number(float(half), 2)}"
            text = f"{format_number(float(mean), 2)}{spread}"
            at = f"{place} {unit}" + (f" (experience {number}: {called})" if called else "")
            points.append(ChartPoint(0, place, float(mean), at, text))
    return points
