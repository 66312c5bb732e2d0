"""The accuracy matrix of one method as a heat map."""

from typing import Final

from matplotlib.figure import Figure

from cl_adapters.reports.figures.cells import Cells, draw_cells
from cl_adapters.reports.figures.parts import mark_mixed, short_label
from cl_adapters.reports.groups import Group, Row

__all__ = ["MATRIX_TITLES", "MOST_NUMBERED", "matrix_figure", "matrix_labels"]

MOST_NUMBERED: Final = 10  # experiences up to which a heat map carries its numbers
MATRIX_TITLES: Final = ("Accuracy on experience", "After learning experience", "Accuracy (%)")


def matrix_figure(group: Group, row: Row) -> Figure:
    """Draws the accuracy matrix of one method, mean over seeds, on the scale from 0 to 100.

    Args:
        group: What the method is compared with.
        row: The method.
    """
    matrix = row.interval("matrix").mean
    side = min(1.2 + 0.36 * matrix.shape[0], 5.0)
    left, bottom, top = 0.58, 0.5, 0.66 if group.mixed else 0.36
    width, height = left + side + 0.9, bottom + side + top
    figure = Figure((width, height))
    mark_mixed(figure, group)
    cells = Cells(
        values=matrix,
        columns=matrix_labels(matrix.shape[1]),
        rows=matrix_labels(matrix.shape[0]),
        titles=MATRIX_TITLES,
        is_numbered=matrix.shape[0] <= MOST_NUMBERED,
    )
    draw_cells(figure, (left, bottom, side, side), cells, "matrix-cells")
    title = f"{short_label(row.label, 38)}, {group.seeds_text(row)}"
    figure.text(0.1 / width, 1 - (top - 0.14) / height, title, fontsize=9, va="bottom")
    return figure


def matrix_labels(size: int) -> list[tuple[int, str]]:
    """Returns place and text of the numbers of experiences, counted from 1, ten at most."""
    step = 1 if size <= MOST_NUMBERED else -(-size // 10)
    return [(place, str(place + 1)) for place in range(step - 1, size, step)]
