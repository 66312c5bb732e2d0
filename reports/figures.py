"""The figures of a comparison, drawn with matplotlib's object interface.

Call inside `figure_files.figure_style()`.
"""

from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cl_adapters.reports.figure_parts import (
    CurveStyle,
    curve_styles,
    mark_mixed,
    new_figure,
    short_label,
)
from cl_adapters.reports.groups import Group, Row

__all__ = ["accuracy_figure", "experience_figure", "forgetting_figure", "matrix_figure"]

_MOST_NUMBERED: Final = 10  # experiences up to which a heat map carries its numbers
_PANEL_COLUMNS: Final = 3


def _curves(group: Group, name: str, heading: str) -> tuple[Figure, Axes]:
    labels = [
        f"{short_label(row.label)}, {len(row.seeds)} seed{'s' * (len(row.seeds) > 1)}"
        for row in group.rows
    ]
    num_columns = 1 if max(map(len, labels)) > 30 else 2
    lines_below = -(-len(labels) // num_columns)
    figure = new_figure(6.4, 3.9 + 0.22 * lines_below, group)
    axes = figure.subplots()
    styles = curve_styles(group)
    handles = [_curve(axes, row, name, styles[row.label]) for row in group.rows]
    axes.set_xlabel(group.progress_heading)
    axes.set_ylabel(heading)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    figure.legend(handles, labels, loc="outside lower center", ncols=num_columns)
    return figure, axes


def _curve(axes: Axes, row: Row, name: str, style: CurveStyle) -> Line2D:
    interval = row.interval(name)
    x = np.array(row.progress)
    known = ~np.isnan(interval.mean)
    (line,) = axes.plot(
        x[known],
        interval.mean[known],
        color=style.colour,
        marker=style.marker,
        linestyle=style.line,
        markevery=max(1, len(x) // 20),
    )
    if interval.num_seeds > 1:
        low, high = interval.mean - interval.half_width, interval.mean + interval.half_width
        band = (np.clip(low, 0, 100)[known], np.clip(high, 0, 100)[known])
        axes.fill_between(x[known], *band, color=style.colour, alpha=0.12, linewidth=0)
    return line


def accuracy_figure(group: Group) -> Figure:
    """Draws the accuracy over all classes seen against their number, with bands over seeds."""
    figure, axes = _curves(group, "seen", "Accuracy over all classes seen (%)")
    axes.set_ylim(_lowest(group), 101.0)
    return figure


def _lowest(group: Group) -> float:
    # From 0, unless every curve and band stays in the upper half.
    intervals = [row.interval("seen") for row in group.rows]
    lows = [interval.mean - np.nan_to_num(interval.half_width) for interval in intervals]
    lowest = min(float(np.nanmin(low)) for low in lows)
    return 0.0 if lowest < 50 else float(10 * np.floor((lowest - 8) / 10))


def forgetting_figure(group: Group) -> Figure:
    """Draws the mean forgetting from best against the progress, with bands."""
    figure, axes = _curves(group, "forgetting", "Forgetting from best (points)")
    axes.set_ylim(bottom=0)
    return figure


def experience_figure(group: Group) -> Figure:
    """Draws one panel a method: the accuracy on each experience from when it was learned."""
    most = max(len(row.classes_seen) for row in group.rows)
    colours = colormaps["viridis"](np.linspace(0.0, 0.88, most))
    figure, panels, bar_axes = _panel_grid(group)
    for panel, row in zip(panels.flat, group.rows, strict=False):
        _experience_panel(panel, row, colours)
    for panel in panels.flat[len(group.rows) :]:
        panel.set_visible(False)
    for panel in panels.flat[len(group.rows) - panels.shape[1] : len(group.rows)]:
        panel.tick_params(labelbottom=True)
    scale = ScalarMappable(BoundaryNorm(np.arange(0.5, most + 1), most), ListedColormap(colours))
    ticks = [1, *range(5, most + 1, 5)] if most > 10 else list(range(1, most + 1))
    figure.colorbar(scale, cax=bar_axes, ticks=ticks).set_label("Experience learned")
    bar_axes.tick_params(length=0)
    return figure


def _panel_grid(group: Group) -> tuple[Figure, NDArray[Any], Axes]:
    # Placed by hand, in inches: the layout engine would take longer than all the drawing.
    num_columns = min(_PANEL_COLUMNS, len(group.rows))
    num_lines = -(-len(group.rows) // num_columns)
    left, bottom, right, top = 0.7, 0.55, 0.95, 0.6 if group.mixed else 0.35
    side, gap = 1.75, 0.5
    width = left + right + max(2.3 * num_columns, 3.6)
    height = bottom + top + num_lines * (side + gap) - gap
    figure = Figure((width, height))
    mark_mixed(figure, group)
    edges = {"left": left, "right": width - right, "bottom": bottom, "top": height - top}
    shares = {
        name: edge / (width if name in ("left", "right") else height)
        for name, edge in edges.items()
    }
    figure.subplots_adjust(wspace=0.12, hspace=gap / side, **shares)
    panels = figure.subplots(num_lines, num_columns, sharex=True, sharey=True, squeeze=False)
    x, y = (shares["left"] + shares["right"]) / 2, (shares["bottom"] + shares["top"]) / 2
    figure.text(x, 0.08 / height, group.progress_heading, ha="center", fontsize=10)
    label = "Accuracy on one experience (%)"
    figure.text(0.08 / width, y, label, rotation=90, va="center", fontsize=10)
    span = shares["top"] - shares["bottom"]
    bar_axes = figure.add_axes(
        ((width - right + 0.15) / width, shares["bottom"], 0.15 / width, span)
    )
    return figure, panels, bar_axes


def _experience_panel(panel: Axes, row: Row, colours: NDArray[np.float64]) -> None:
    matrix, x = row.interval("matrix").mean, np.array(row.progress)
    for experience in range(matrix.shape[0]):
        values = matrix[experience:, experience]
        known = ~np.isnan(values)
        kwargs = {"color": colours[experience], "marker": "o", "markersize": 2.5, "linewidth": 1.3}
        panel.plot(x[experience:][known], values[known], **kwargs)
    panel.set_ylim(-2, 102)
    panel.set_xlim(left=0)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    panel.set_title(f"{short_label(row.label, 26)} (n = {len(row.seeds)})", fontsize=9)


def matrix_figure(group: Group, row: Row) -> Figure:
    """Draws the accuracy matrix of one method, mean over seeds, on the scale from 0 to 100."""
    matrix = row.interval("matrix").mean
    # Placed by hand, in inches: the layout engine would take half of the time of a report.
    side = min(1.2 + 0.36 * matrix.shape[0], 5.0)
    left, bottom, top = 0.62, 0.55, 0.85 if group.mixed else 0.5
    width, height = left + side + 1.1, bottom + side + top
    figure = Figure((width, height))
    mark_mixed(figure, group)
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    bar_axes = figure.add_axes(
        ((left + side + 0.15) / width, bottom / height, 0.17 / width, side / height)
    )
    colours = colormaps["cividis"].with_extremes(bad="#FFFFFF")
    image = axes.imshow(matrix, cmap=colours, norm=Normalize(0, 100), aspect="auto")
    if matrix.shape[0] <= _MOST_NUMBERED:
        _write_numbers(axes, matrix)
    _number_ticks(axes, matrix)
    axes.set_xlabel("Accuracy on experience")
    axes.set_ylabel("After learning experience")
    plural = "s" * (len(row.seeds) > 1)
    axes.set_title(f"{short_label(row.label, 38)}\n{len(row.seeds)} seed{plural}", fontsize=9)
    figure.colorbar(image, cax=bar_axes).set_label("Accuracy (%)")
    return figure


def _number_ticks(axes: Axes, matrix: NDArray[np.float64]) -> None:
    for axis, size in ((axes.xaxis, matrix.shape[1]), (axes.yaxis, matrix.shape[0])):
        step = 1 if size <= _MOST_NUMBERED else -(-size // 10)
        places = range(0, size, step) if step == 1 else range(step - 1, size, step)
        axis.set_ticks(list(places), [str(place + 1) for place in places])
    axes.tick_params(length=0)
    axes.grid(visible=False)


def _write_numbers(axes: Axes, matrix: NDArray[np.float64]) -> None:
    for t, i in np.argwhere(~np.isnan(matrix)):
        colour = "#000000" if matrix[t, i] > 55 else "#FFFFFF"
        axes.text(i, t, f"{matrix[t, i]:.0f}", ha="center", va="center", color=colour, fontsize=8)
