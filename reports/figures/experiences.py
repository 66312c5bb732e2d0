"""What becomes of each experience once it has been learned: one panel a method."""

from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cl_adapters.reports.figures.parts import mark_mixed, short_label
from cl_adapters.reports.groups import Group, Row

__all__ = ["experience_figure"]

_PANEL_COLUMNS: Final = 3


def experience_figure(group: Group) -> Figure:
    """Draws one panel a method: the accuracy on each experience from when it was learned."""
    most = max(len(row.classes_seen) for row in group.rows)
    colours = colormaps["viridis"](np.linspace(0.0, 0.88, most))
    figure, panels, bar_axes = _panel_grid(group)
    for panel, row in zip(panels.flat, group.rows, strict=False):
        _experience_panel(panel, row, colours, group.seeds_of(row))
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


def _experience_panel(panel: Axes, row: Row, colours: NDArray[np.float64], seeds: str) -> None:
    matrix, x = row.interval("matrix").mean, np.array(row.progress)
    for experience in range(matrix.shape[0]):
        values = matrix[experience:, experience]
        known = ~np.isnan(values)
        kwargs = {"color": colours[experience], "marker": "o", "markersize": 2.5, "linewidth": 1.3}
        panel.plot(x[experience:][known], values[known], **kwargs)
    panel.set_ylim(-2, 102)
    panel.set_xlim(left=0)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    panel.set_title(f"{short_label(row.label, 26)} (n = {seeds})", fontsize=9)
