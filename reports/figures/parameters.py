"""The figure of what growth costs: parameters over experiences beside linear growth.

Call inside `files.figure_style()`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from cl_adapters.reports.figures.curves import has_whiskers
from cl_adapters.reports.figures.parts import draw_curve, new_figure, short_label
from cl_adapters.reports.figures.seams import draw_seams, experience_seams
from cl_adapters.reports.figures.ticks import set_experience_ticks
from cl_adapters.reports.groups import Group
from cl_adapters.reports.growth import History, linear_growth
from cl_adapters.reports.looks import CurveStyle
from cl_adapters.reports.seeds import mean_interval

__all__ = ["parameters_figure"]

_LINEAR: Final = (0, (1, 1.2))


def parameters_figure(group: Group, histories: Mapping[str, Sequence[History]]) -> Figure:
    """Draws the parameters beside the backbone over experiences, and linear growth.

    Args:
        group: The methods.
        histories: Of the runs of each row, by label.
    """
    names = [short_label(group.name_among(row), 60) for row in group.rows]
    num_columns = 1 if max(map(len, names)) > 32 else 2
    figure = new_figure(6.4, 3.9 + 0.22 * -(-(len(group.rows) + 1) // num_columns), group)
    axes = figure.subplots()
    whiskers = 0.0 if has_whiskers(group) else None
    for row, name in zip(group.rows, names, strict=True):
        added = np.stack([run.added for run in histories[row.label]])
        interval, style = mean_interval(added), group.looks[row.label]
        x = np.arange(1, interval.mean.size + 1).tolist()
        look: dict[str, Any] = {"label": name, "markevery": 1, "whiskers": whiskers}
        draw_curve(axes, x, interval, style, limits=(0, np.inf), **look)
    _linear_lines(axes, histories, group.looks)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=num_columns)
    axes.set_xlabel("Experience")
    axes.set_ylabel("Parameters beside the backbone")
    axes.set_title(group.seeds_note, loc="left", fontsize=8.5, color="#555555")
    longest = max(len(runs[0].added) for runs in histories.values())
    set_experience_ticks(axes, longest, group.experience_names)
    _scale(axes)
    draw_seams(axes, experience_seams(group.rows))
    return figure


def _linear_lines(
    axes: Axes, histories: Mapping[str, Sequence[History]], styles: Mapping[str, CurveStyle]
) -> None:
    lines = {label: mean_interval(linear_growth(runs)).mean for label, runs in histories.items()}
    lines = {label: line for label, line in lines.items() if not np.isnan(line).any()}
    if not lines:
        return
    # Methods that differ in anything but an adapter's cost share one line.
    is_one = len({tuple(line.round(3).tolist()) for line in lines.values()}) == 1
    drawn = list(lines.items())[: 1 if is_one else None]
    for label, line in drawn:
        colour = "#000000" if is_one else styles[label].colour
        axes.plot(
            np.arange(1, len(line) + 1), line, color=colour, linestyle=_LINEAR, label="_linear"
        )
    label = "linear growth" if is_one else "linear growth (colour of its method)"
    axes.add_line(Line2D([], [], color="#000000", linestyle=_LINEAR, label=label))


def _scale(axes: Axes) -> None:
    # Logarithmic where one method would press all others onto the axis.
    curves = [np.asarray(line.get_ydata(), np.float64) for line in axes.get_lines()]
    ends = [float(curve.max()) for curve in curves if curve.size]
    if ends and min(ends) > 0 and max(ends) > 50 * min(ends):
        axes.set_yscale("log")
        axes.set_ylabel("Parameters beside the backbone (log scale)")
    else:
        axes.set_ylim(0, 1.06 * max(ends, default=1) or 1)
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
