"""A heat map of percentages with its scale, drawn by hand.

Matplotlib's ticks and colour bars would take most of the time of a report that shows a few heat
maps of every method.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cl_adapters.reports.figures.parts import ON_DARK, ON_LIGHT

__all__ = ["Cells", "draw_cells"]

_COLOURS: Final = colormaps["cividis"].with_extremes(bad="none")
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
    """

    values: NDArray[np.float64]
    columns: Sequence[tuple[int, str]]
    rows: Sequence[tuple[int, str]]
    titles: tuple[str, str, str]
    is_numbered: bool = False
    is_turned: bool = False


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
        "cmap": _COLOURS,
        "norm": Normalize(0, 100),
        "aspect": "auto",
        "interpolation": "none",
    }
    axes.imshow(cells.values, extent=(0, num_columns, num_rows, 0), gid=name, **look)
    ends = ((width + _GAP) * across, total * across)
    axes.imshow(_LEVELS, extent=(*ends, num_rows, 0), gid=f"{name}-scale", **look)
    axes.set_xlim(0, total * across)
    axes.set_ylim(num_rows, 0)
    if cells.is_numbered:
        _write_numbers(axes, cells.values)
    _label(figure, box, cells, (across, down))
    return axes


def _share(figure: Figure, box: Box) -> Box:
    width, height = figure.get_size_inches()
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def _write_numbers(axes: Axes, values: NDArray[np.float64]) -> None:
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
