"""Accuracy against cost: which methods nothing beats on both."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from cl_adapters.reports.definitions import COLUMNS, Column, format_number
from cl_adapters.reports.figures.interactive import Chart, ChartPoint, Curve, curve_id
from cl_adapters.reports.figures.parts import new_figure, short_label
from cl_adapters.reports.groups import Group, Row
from cl_adapters.reports.looks import CurveStyle
from cl_adapters.reports.pareto import frontier

__all__ = ["PARETO_COSTS", "pareto_chart", "pareto_figure", "shown_costs"]

PARETO_COSTS: Final = (
    "train_seconds",
    "evaluation_seconds",
    "added_parameters",
    "kept_mebibytes",
)
_SCORE: Final = "a_last_micro"
_BY_NAME: Final = {column.name: column for column in COLUMNS}
_LOG_FROM: Final = 20  # largest cost over smallest from which the axis is logarithmic


def shown_costs(group: Group) -> list[Column]:
    """Returns the costs that every method of a group knows, and that tell any two apart."""
    shown = []
    for name in PARETO_COSTS:
        costs = [_cost(row, name) for row in group.rows]
        if not any(map(math.isnan, costs)) and len(set(costs)) > 1:
            shown.append(_BY_NAME[name])
    return shown


def _cost(row: Row, name: str) -> float:
    return float(row.interval(name).mean)


def pareto_figure(group: Group, costs: Sequence[Column] | None = None) -> Figure:
    """Draws A_last against each cost, with intervals, and the line of those that nothing beats.

    Args:
        group: The methods.
        costs: A panel each, of `shown_costs`; None for all of them.
    """
    costs = shown_costs(group) if costs is None else costs
    labels = [_name(group, row) for row in group.rows]
    width = max(2.9 * len(costs), 4.2)
    num_columns = max(1, min(len(labels), int(12.5 * width / (max(map(len, labels)) + 6))))
    figure = new_figure(width, 3.0 + 0.22 * -(-(len(labels) + 1) // num_columns), group)
    panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for axes, column in zip(panels, costs, strict=True):
        values = [_cost(row, column.name) for row in group.rows]
        _scale(axes, values, column)
        _frontier(axes, group, values)
        for number, row in enumerate(group.rows):
            _point(axes, row, column, group.looks[row.label], number)
    panels[0].set_ylabel("A_last, micro (%)")
    panels[0].set_title(group.seeds_note, loc="left", fontsize=8.5, color="#555555")
    panels[0].set_ylim(*_limits(group))
    handles, _ = panels[0].get_legend_handles_labels()
    texts = [*(["no rival is better and cheaper"] if len(handles) > len(labels) else []), *labels]
    figure.legend(handles, texts, loc="outside lower center", ncols=num_columns)
    return figure


def _name(group: Group, row: Row) -> str:
    name = short_label(group.name_among(row), 60)
    return f"{name} (upper bound)" if row.is_upper_bound else name


def _limits(group: Group) -> tuple[float, float]:
    ends = [
        float(interval.mean) + side * float(np.nan_to_num(interval.half_width))
        for interval in (row.interval(_SCORE) for row in group.rows)
        for side in (-1, 1)
    ]
    room = 0.08 * (max(ends) - min(ends)) + 0.5
    return max(min(ends) - room, -2), min(max(ends) + room, 102)


def _scale(axes: Axes, values: list[float], column: Column) -> None:
    is_log = min(values) > 0 and max(values) >= _LOG_FROM * min(values)
    unit = f" ({column.unit})" if column.unit else ""
    if is_log:
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 1.8, max(values) * 1.8)
        axes.xaxis.set_major_locator(LogLocator(10, numticks=6))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, 1.08 * max(values) or 1)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(f"{column.heading}{unit}{', log scale' if is_log else ''}", fontsize="medium")


def _frontier(axes: Axes, group: Group, costs: list[float]) -> None:
    scores = [
        math.nan if row.is_upper_bound else float(row.interval(_SCORE).mean) for row in group.rows
    ]
    best = frontier(costs, scores)
    if not best:
        return
    x = [costs[i] for i in best]
    y = [scores[i] for i in best]
    right = axes.get_xlim()[1]
    places = [*x, right], [*y, y[-1]]
    look: dict[str, Any] = {
        "color": "#777777",
        "linewidth": 1.2,
        "zorder": 1,
        "drawstyle": "steps-post",
    }
    axes.plot(*places, linestyle=(0, (2, 1.5)), label="frontier", **look)


def _point(axes: Axes, row: Row, column: Column, style: CurveStyle, number: int) -> None:
    cost, score = row.interval(column.name), row.interval(_SCORE)
    bars = [
        None if math.isnan(half) else np.array([[min(half, mean)], [half]])
        for half, mean in ((float(each.half_width), float(each.mean)) for each in (cost, score))
    ]
    drawn = axes.errorbar(
        float(cost.mean),
        float(score.mean),
        xerr=bars[0],
        yerr=bars[1],
        color=style.colour,
        marker=style.marker,
        markersize=7,
        fillstyle=style.fill,
        linestyle="none",
        elinewidth=1,
        label="_" if axes is not axes.figure.axes[0] else row.label.lstrip("_") or "method",
        zorder=3,
    )
    panel = axes.figure.axes.index(axes)
    line, caps, errors = drawn.lines
    for part, artist in enumerate(each for each in (line, *caps, *errors) if each is not None):
        artist.set_gid(curve_id(number, f"{panel}-{part}"))


def pareto_chart(group: Group) -> Chart:
    """Returns what the page shows of `pareto_figure`."""
    return Chart(
        by="point",
        curves=[
            Curve(
                number=number,
                label=group.name_among(row),
                look=group.looks[row.label]._replace(line="-"),
                points=list(_points(group, row)),
            )
            for number, row in enumerate(group.rows)
        ],
    )


def _points(group: Group, row: Row) -> Iterator[ChartPoint]:
    score = _text(row, _BY_NAME[_SCORE])
    for panel, column in enumerate(shown_costs(group)):
        cost = _cost(row, column.name)
        value = float(row.interval(_SCORE).mean)
        at = f"{column.heading} {_text(row, column)}"
        yield ChartPoint(panel, cost, value, at, score)


def _text(row: Row, column: Column) -> str:
    interval = row.interval(column.name)
    half = float(interval.half_width)
    spread = "" if math.isnan(half) or not half else f" ± {format_number(half, column.digits)}"
    unit = f" {column.unit}" if column.unit else ""
    return f"{format_number(float(interval.mean), column.digits)}{spread}{unit}"
