"""What each grown adapter is worth: a heat map of the points that are lost without it.

Call inside `files.figure_style()`. Adapters and experiences are counted from 1, blocks from 0.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from cl_adapters.reports.ablation import Worth
from cl_adapters.reports.experience_names import experience_label
from cl_adapters.reports.figures.cells import Scale, draw_scale, inches
from cl_adapters.reports.figures.parts import (
    MOST_SEEDS,
    ON_DARK,
    ON_LIGHT,
    mark_mixed,
    short_label,
)
from cl_adapters.reports.groups import Group, Row
from cl_adapters.reports.growth import History

__all__ = ["worth_figure"]

# Red costs, blue helps, and what changes nothing is pale.
_COLOURS: Final = LinearSegmentedColormap.from_list("worth", ["#A33B20", "#F1EEE7", "#1F5FA8"])
_CELL: Final = (0.46, 0.2)  # inches
_MOST_NUMBERED: Final = 12  # columns up to which cells carry their numbers
_GAP, _BOTTOM, _RIGHT = 0.62, 0.5, 1.0


def worth_figure(
    group: Group,
    row: Row,
    runs: Sequence[tuple[int, Worth, History]],
    most: int = MOST_SEEDS,
) -> Figure:
    """Draws what the grown adapters of a method are worth, one panel a seed.

    Args:
        group: What the method is compared with.
        row: The method.
        runs: Seed, worth and history of its runs that were asked, at least one.
        most: Runs that are drawn; of more, the first.
    """
    runs = runs[:most]
    columns = max(worth.points.shape[1] for _, worth, _ in runs)
    names = [worth.names(history) for _, worth, history in runs]
    left = 0.2 + 0.066 * max(len(name) for each in names for name in each)
    top = 0.8 if group.mixed else 0.56
    depth = sum(len(each) * _CELL[1] + _GAP for each in names)
    width = left + columns * _CELL[0] + _RIGHT
    height = top + depth + _BOTTOM
    figure = Figure((width, height))
    mark_mixed(figure, group)
    title = f"{short_label(row.label, 34)}: points lost without adapters"
    figure.text(0.1 / width, 1 - (top - 0.3) / height, title, fontsize=9.5, va="bottom")
    canvas = inches(figure)
    limit = max(1.0, *(float(np.nanmax(np.abs(worth.points))) for _, worth, _ in runs))
    y = top + 0.12
    for number, ((seed, worth, _), called) in enumerate(zip(runs, names, strict=True)):
        canvas.text(left, y - 0.06, f"seed {seed}", va="bottom", fontsize=8.5)
        _panel(canvas, worth, called, (left, y), limit, f"worth-{number}")
        y += len(called) * _CELL[1] + _GAP
    middle = left + columns * _CELL[0] / 2
    label = "Test experience, at the end of the stream"
    canvas.text(middle, height - 0.14, label, ha="center", va="bottom", fontsize=9)
    scale = Scale(
        title="Points",
        colours=_COLOURS,
        labels=[(0.0, f"-{limit:.1f}"), (0.5, "0"), (1.0, f"+{limit:.1f}")],
        name="worth-scale",
    )
    draw_scale(canvas, (left + columns * _CELL[0] + 0.18, top + 0.12, 0.15, 1.1), scale)
    return figure


def _panel(
    canvas: Axes,
    worth: Worth,
    names: Sequence[str],
    corner: tuple[float, float],
    limit: float,
    name: str,
) -> None:
    (x, y), (rows, columns) = corner, worth.points.shape
    across, down = _CELL
    edges = (x, x + columns * across, y + rows * down, y)
    look: dict[str, Any] = {"aspect": "auto", "interpolation": "none", "gid": name}
    canvas.imshow(worth.points, _COLOURS, Normalize(-limit, limit), extent=edges, **look)
    for place, text in enumerate(names):
        middle = y + (place + 0.5) * down
        canvas.text(x - 0.06, middle, text, ha="right", va="center_baseline", fontsize=7.5)
    step = 1 if columns <= _MOST_NUMBERED else -(-columns // _MOST_NUMBERED)
    for place in (*range(0, columns - 1, step), columns - 1):
        text = "all" if place == columns - 1 else experience_label(place + 1, "")
        middle = x + (place + 0.5) * across
        canvas.text(middle, y + rows * down + 0.05, text, ha="center", va="top", fontsize=7.5)
    if columns > _MOST_NUMBERED:
        return
    for (line, place), value in np.ndenumerate(worth.points):
        if np.isnan(value):  # no test image
            continue
        ink = ON_DARK if abs(value) > 0.6 * limit else ON_LIGHT
        text = f"{value:+.1f}" if round(value, 1) else "0"
        look = {"ha": "center", "va": "center_baseline", "fontsize": 7, "color": ink}
        canvas.text(x + (place + 0.5) * across, y + (line + 0.5) * down, text, **look)
