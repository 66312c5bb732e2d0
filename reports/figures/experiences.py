"""What becomes of each experience once it has been learned: one panel a method."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cl_adapters.reports.experience_names import experience_label
from cl_adapters.reports.figures.cells import Scale, draw_scale, inches
from cl_adapters.reports.figures.parts import mark_mixed, short_label
from cl_adapters.reports.figures.seams import SEAM, SEAM_LOOK, progress_seams
from cl_adapters.reports.figures.ticks import data_ticks
from cl_adapters.reports.groups import Group, Row

__all__ = ["experience_figure"]

_PANEL_COLUMNS: Final = 3
_SIDE, _BESIDE, _ABOVE = 1.75, 0.26, 0.5  # inches: height of a panel, and gaps between panels
_LEFT, _RIGHT, _BOTTOM = 0.7, 0.95, 0.55
_PERCENTS: Final = (0, 20, 40, 60, 80, 100)


def experience_figure(group: Group) -> Figure:
    """Draws one panel a method: the accuracy on each experience from when it was learned."""
    # All panels at once and by hand, in inches: axes of their own would take most of the time.
    most = max(len(row.classes_seen) for row in group.rows)
    num_columns = min(_PANEL_COLUMNS, len(group.rows))
    num_lines = -(-len(group.rows) // num_columns)
    body = max(2.3 * num_columns, 3.6)
    across = (body - _BESIDE * (num_columns - 1)) / num_columns
    top = 0.6 if group.mixed else 0.35
    depth = num_lines * (_SIDE + _ABOVE) - _ABOVE
    scale = _scale(most, group.experience_names)
    right = _RIGHT + 0.07 * (max(len(text) for _, text in scale.labels) - 2)
    width, height = _LEFT + body + right, top + depth + _BOTTOM
    figure = Figure((width, height))
    mark_mixed(figure, group)
    canvas = inches(figure)
    ticks = data_ticks((place for row in group.rows for place in row.progress), 6)
    colours = scale.colours(np.arange(most))
    for number, row in enumerate(group.rows):
        line, column = divmod(number, num_columns)
        corner = (_LEFT + column * (across + _BESIDE), top + line * (_SIDE + _ABOVE))
        panel = _Panel(corner, across, ticks)
        _draw_frame(canvas, panel, short_label(group.name_among(row), 34))
        _draw_curves(canvas, panel, row, colours)
        is_last = number + num_columns >= len(group.rows)
        _write_ticks(canvas, panel, has_y=column == 0, has_x=is_last)
    canvas.text(_LEFT + body / 2, height - 0.08, group.progress_heading, ha="center", size=10)
    canvas.text(0.08, height - 0.08, group.seeds_note, color="#555555")
    label = "Accuracy on one experience (%)"
    canvas.text(0.08, top + depth / 2, label, rotation=90, va="center", size=10)
    draw_scale(canvas, (_LEFT + body + 0.15, top, 0.15, min(depth, 3.0)), scale)
    return figure


def _scale(most: int, names: Sequence[str]) -> Scale:
    colours = colormaps["viridis"](np.linspace(0.0, 0.88, most))
    shown = [1, *range(5, most + 1, 5)] if most > 10 else range(1, most + 1)
    return Scale(
        title="Experience learned",
        colours=ListedColormap(colours),
        labels=[
            ((t - 0.5) / most, experience_label(t, names[t - 1] if names else "")) for t in shown
        ],
        name="experiences-scale",
    )


class _Panel(NamedTuple):
    # From numbers to inches; a panel reaches from -2 to 102 %.
    corner: tuple[float, float]
    width: float
    ticks: list[int]

    def place(self, x: Any, percent: Any) -> tuple[Any, Any]:  # noqa: ANN401 - numbers or arrays
        most = 1.03 * self.ticks[-1] if self.ticks[-1] else 1.0
        return (
            self.corner[0] + self.width * x / most,
            self.corner[1] + _SIDE * (102 - percent) / 104,
        )


def _write_ticks(canvas: Axes, panel: _Panel, *, has_x: bool, has_y: bool) -> None:
    for percent in _PERCENTS if has_y else ():
        x, y = panel.place(0, percent)
        canvas.text(x - 0.05, y, str(percent), ha="right", va="center_baseline")
    for tick in panel.ticks if has_x else ():
        x, y = panel.place(tick, -2)
        canvas.text(x, y + 0.05, str(tick), ha="center", va="top")


def _draw_frame(canvas: Axes, panel: _Panel, title: str) -> None:
    end = panel.ticks[-1] * 1.03 or 1.0
    grid = [[panel.place(0, percent), panel.place(end, percent)] for percent in _PERCENTS]
    grid += [[panel.place(tick, -2), panel.place(tick, 102)] for tick in panel.ticks]
    frame = [panel.place(0, 102), panel.place(0, -2), panel.place(end, -2)]
    colours, widths = ["#E3E3E3"] * len(grid) + ["#444444"], [0.7] * len(grid) + [0.8]
    lines = LineCollection([*grid, frame], colors=colours, linewidths=widths, zorder=1)
    canvas.add_collection(lines, autolim=False)
    x, y = panel.place(end / 2, 102)
    canvas.text(x, y - 0.05, title, ha="center", va="bottom")


def _draw_curves(canvas: Axes, panel: _Panel, row: Row, colours: NDArray[np.float64]) -> None:
    matrix, progress = row.interval("matrix").mean, np.array(row.progress)
    curves = []
    for t in range(matrix.shape[0]):
        known = ~np.isnan(matrix[t:, t])
        curves.append(np.stack(panel.place(progress[t:][known], matrix[t:, t][known]), axis=1))
    canvas.add_collection(LineCollection(curves, colors=colours, linewidths=1.3), autolim=False)
    seams = [[panel.place(at, -2), panel.place(at, 102)] for at in progress_seams([row])]
    if seams:
        lines = LineCollection(seams, **SEAM_LOOK, zorder=1, gid="seams")
        canvas.add_collection(lines, autolim=False)
        for at in progress_seams([row]):
            x, y = panel.place(at, 4)
            canvas.text(x, y, SEAM, rotation=90, ha="right", va="bottom", size=6, color="#777777")
    repeated = np.repeat(colours[: len(curves)], [len(curve) for curve in curves], axis=0)
    x, y = np.concatenate(curves).T
    canvas.scatter(x, y, s=2.5**2, c=repeated, zorder=2, linewidths=0)
