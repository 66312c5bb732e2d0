"""Heat maps and their scales, drawn by hand.

Matplotlib's ticks and colour bars would take most of the time of a report that shows a few heat
maps of every method.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cl_adapters.reports.figures.parts import ON_DARK, ON_LIGHT

__all__ = [
    "CELL_COLOURS",
    "WRONG_COLOURS",
    "Cells",
    "Scale",
    "draw_cells",
    "draw_scale",
    "inches",
    "write_numbers",
]

CELL_COLOURS: Final = colormaps["cividis"].with_extremes(bad="none")
_DARK: Final = to_hex(CELL_COLOURS(0.0))
WRONG_COLOURS: Final = LinearSegmentedColormap.from_list(
    "wrong", [_DARK, "#7A2F5C", "#D8412F"]
).with_extremes(bad="none")
_GAP, _BAR = 0.15, 0.17  # inches between map and scale, and width of the scale
_LEVELS: Final = np.linspace(100, 0, 101)[:, None]

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Cells:
    """What a heat map shows.

    Attributes:
        values: Percentages, NaN for an empty cell.
        columns: Place and text of each label below.
        rows: Place and text of each label on the left.
        titles: What columns, rows and colours are.
        is_numbered: Whether each cell carries its number.
        is_turned: Whether the labels below stand upright.
        is_wrong: Which cells count errors: their colours go to red, with a scale of their own, so
            that much of what is bad does not shine as much of what is good. None for none.
    """

    values: NDArray[np.float64]
    columns: Sequence[tuple[int, str]]
    rows: Sequence[tuple[int, str]]
    titles: tuple[str, str, str]
    is_numbered: bool = False
    is_turned: bool = False
    is_wrong: NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What the colours of a heat map mean.

    Attributes:
        title: What they show.
        colours: The colours, from below to above.
        labels: Place from 0, below, to 1, above, and text of each label.
        name: Identifier of its image, unique in the figure.
    """

    title: str
    colours: Colormap
    labels: Sequence[tuple[float, str]]
    name: str


def inches(figure: Figure, box: Box | None = None) -> Axes:
    """Returns axes that show nothing of themselves and count inches from a figure's top left.

    Args:
        figure: What to draw on.
        box: Left, top, width and height of the part that they cover; None for all.
    """
    width, height = figure.get_size_inches()
    x, y, across, down = box or (0.0, 0.0, width, height)
    place = (x / width, 1 - (y + down) / height, across / width, down / height)
    axes = figure.add_axes(place, xlim=(x, x + across), ylim=(y + down, y))
    axes.set_axis_off()
    return axes


def draw_scale(axes: Axes, box: Box, scale: Scale) -> None:
    """Draws the scale of a heat map.

    Args:
        axes: From `inches`.
        box: Left, top, width and height of the colours; the text stands to their right.
        scale: What they mean.
    """
    x, y, width, height = box
    levels = np.linspace(1, 0, 101)[:, None]
    edges = (x, x + width, y + height, y)
    look: dict[str, Any] = {"aspect": "auto", "interpolation": "none", "gid": scale.name}
    axes.imshow(levels, scale.colours, Normalize(0, 1), extent=edges, **look)
    for share, text in scale.labels:
        level = y + height * (1 - share)
        axes.text(x + width + 0.05, level, text, va="center_baseline", fontsize=7.5)
    beside = x + width + 0.12 + 0.062 * max(len(text) for _, text in scale.labels)
    axes.text(beside, y + height / 2, scale.title, rotation=90, va="center", fontsize=8.5)


def draw_cells(figure: Figure, box: Box, cells: Cells, name: str) -> Axes:
    """Draws a heat map and, on its right, its scale.

    Args:
        figure: What to draw on.
        box: Left, bottom, width and height of the map in inches.
        cells: What it shows.
        name: Identifier of its image, unique in the figure.
    """
    left, bottom, width, height = box
    num_rows, num_columns = cells.values.shape
    # One axes holds the map and its scale: units of cells, (0, 0) the corner at the top left.
    across, down = num_columns / width, num_rows / height
    total = width + _GAP + _BAR
    place = _share(figure, (left, bottom, total, height))
    axes = figure.add_axes(place, xlim=(0, total * across), ylim=(num_rows, 0))
    axes.set_axis_off()
    look: dict[str, Any] = {
        "norm": Normalize(0, 100),
        "aspect": "auto",
        "interpolation": "none",
    }
    is_wrong = np.zeros_like(cells.values, bool) if cells.is_wrong is None else cells.is_wrong
    for part, shown, colours in (
        ("", ~is_wrong, CELL_COLOURS),
        ("-wrong", is_wrong, WRONG_COLOURS),
    ):
        if not shown.any():
            continue
        look["cmap"] = colours
        values = np.where(shown, cells.values, np.nan)
        axes.imshow(values, extent=(0, num_columns, num_rows, 0), gid=f"{name}{part}", **look)
        start = width + _GAP + (_BAR / 2 if part else 0)
        ends = (start * across, total * across)  # that of errors covers the right half
        axes.imshow(_LEVELS, extent=(*ends, num_rows, 0), gid=f"{name}{part}-scale", **look)
    axes.set_xlim(0, total * across)
    axes.set_ylim(num_rows, 0)
    if cells.is_numbered:
        write_numbers(axes, cells.values)
    _label(figure, box, cells, (across, down))
    return axes


def _share(figure: Figure, box: Box) -> Box:
    width, height = figure.get_size_inches()
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def write_numbers(axes: Axes, values: NDArray[np.float64]) -> None:
    """Writes the number of each cell that has one.

    Args:
        axes: Units of cells, (0, 0) the corner at the top left.
        values: Percentages by row and column, NaN for an empty cell.
    """
    for t, i in np.argwhere(~np.isnan(values)):
        ink = ON_LIGHT if values[t, i] > 55 else ON_DARK
        axes.text(
            i + 0.5, t + 0.5, f"{values[t, i]:.0f}",
            ha="center", va="center", color=ink, fontsize=8,
        )  # fmt: skip


def _label(figure: Figure, box: Box, cells: Cells, scale: tuple[float, float]) -> None:
    left, bottom, width, height = box
    size = figure.get_size_inches()

    def write(x: float, y: float, text: str, **look: Any) -> None:  # noqa: ANN401
        figure.text(x / size[0], y / size[1], text, **look)

    turned = {"rotation": 90} if cells.is_turned else {}
    for place, text in cells.columns:
        x = left + (place + 0.5) / scale[0]
        write(x, bottom - 0.05, text, ha="center", va="top", fontsize=7.5, **turned)
    for place, text in cells.rows:
        y = bottom + height - (place + 0.5) / scale[1]
        write(left - 0.05, y, text, ha="right", va="center_baseline", fontsize=7.5)
    for percent in range(0, 101, 20):
        x, y = left + width + _GAP + _BAR + 0.05, bottom + height * percent / 100
        write(x, y, str(percent), va="center_baseline", fontsize=7.5)
    below, beside, colours = cells.titles
    middle = bottom + height / 2
    write(left + width / 2, 0.07, below, ha="center", va="bottom", fontsize=9)
    write(0.07, middle, beside, rotation=90, va="center", fontsize=9)
    x = left + width + _GAP + _BAR + 0.34
    write(x, middle, colours, rotation=90, va="center", fontsize=9)
