"""The report's figures on axes of the caller's, for notebooks and scripts.

Without axes a figure of pyplot's is made, in the report's style, so that `plt.show()`,
`plt.savefig` and notebooks find it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cl_adapters.reports.figures.cells import CELL_COLOURS, write_numbers
from cl_adapters.reports.figures.curves import (
    curve_size,
    draw_curves,
    draw_labelled_curves,
    intervals_note,
)
from cl_adapters.reports.figures.end_labels import end_texts
from cl_adapters.reports.figures.files import figure_style
from cl_adapters.reports.figures.matrix import MATRIX_TITLES, MOST_NUMBERED, matrix_labels
from cl_adapters.reports.groups import Group

__all__ = ["plot_accuracy", "plot_cells"]


def plot_accuracy(group: Group, axes: Axes | None = None) -> Axes:
    """Draws the accuracy over all classes seen, a curve a method.

    Args:
        group: The methods, at least one.
        axes: What to draw on, with a legend inside; None makes a figure with each curve's name at
            its end.
    """
    if axes is not None:
        with mpl.rc_context({"text.parse_math": False}):
            lines = draw_curves(axes, group, "seen")
            axes.legend(lines, end_texts(group), title=intervals_note(group))
        return axes
    width, height = curve_size(group)
    with _new_figure(width, height) as figure:
        axes = figure.subplots()
        draw_labelled_curves(axes, group, "seen", height)
    return axes


def plot_cells(
    matrix: NDArray[np.float64], title: str, axes: Axes | None = None, names: Sequence[str] = ()
) -> Axes:
    """Draws an accuracy matrix as a heat map with its scale.

    Args:
        matrix: R[t, i] in percent, NaN where nothing was evaluated.
        title: Stands above.
        axes: What to draw on; their figure gives room for the scale. None makes a figure.
        names: What the experiences are called; empty for numbers alone.
    """
    if axes is not None:
        _draw_cells(axes, matrix, title, names)
        return axes
    side = min(1.2 + 0.36 * matrix.shape[0], 5.0)
    with _new_figure(side + 1.5, side + 0.9) as figure:
        axes = figure.subplots()
        _draw_cells(axes, matrix, title, names)
    return axes


@contextmanager
def _new_figure(width: float, height: float) -> Iterator[Figure]:
    # Outside of the style: a notebook's backend makes settings of its own when it is first used.
    figure = plt.figure(figsize=(width, height), layout="constrained", facecolor="white")
    with figure_style():
        yield figure


def _draw_cells(axes: Axes, matrix: NDArray[np.float64], title: str, names: Sequence[str]) -> None:
    num_rows, num_columns = matrix.shape
    image = axes.imshow(
        matrix,
        cmap=CELL_COLOURS,
        norm=Normalize(0, 100),
        interpolation="none",
        extent=(0, num_columns, num_rows, 0),
    )
    if num_rows <= MOST_NUMBERED:
        write_numbers(axes, matrix)
    below, beside, colours = MATRIX_TITLES
    for axis, size, heading in ((axes.xaxis, num_columns, below), (axes.yaxis, num_rows, beside)):
        places = matrix_labels(size, names)
        axis.set_ticks([place + 0.5 for place, _ in places], [text for _, text in places])
        axis.set_label_text(heading)
    axes.tick_params(length=0)
    if names:
        axes.tick_params(axis="x", rotation=90)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left", fontsize="medium", parse_math=False)
    if axes.figure is not None:  # as mypy may think
        axes.figure.colorbar(image, ax=axes, label=colours)
