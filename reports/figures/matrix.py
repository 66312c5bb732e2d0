"""The accuracy matrix of one method as a heat map."""

from collections.abc import Sequence
from typing import Final

from matplotlib.figure import Figure

from cl_adapters.reports.experience_names import experience_label
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
    labels = matrix_labels(len(matrix), row.experience_names)
    margin = 0.065 * max(max(len(text) for _, text in labels) - 2, 0)
    left, bottom, top = 0.58 + margin, 0.5 + margin, 0.66 if group.mixed else 0.36
    width, height = left + side + 0.9, bottom + side + top
    figure = Figure((width, height))
    mark_mixed(figure, group)
    cells = Cells(
        values=matrix,
        columns=labels,
        rows=labels,
        titles=MATRIX_TITLES,
        is_numbered=matrix.shape[0] <= MOST_NUMBERED,
        is_turned=bool(row.experience_names),
    )
    draw_cells(figure, (left, bottom, side, side), cells, "matrix-cells")
    title = f"{short_label(row.label, 38)}, {group.seeds_text(row)}"
    figure.text(0.1 / width, 1 - (top - 0.14) / height, title, fontsize=9, va="bottom")
    return figure


def matrix_labels(size: int, names: Sequence[str] = ()) -> list[tuple[int, str]]:
    """Returns place and text of the labels of experiences, counted from 1, ten at most.

    Args:
        size: Number of experiences.
        names: What each is called; empty for numbers alone.
    """
    step = 1 if size <= MOST_NUMBERED else -(-size // 10)
    called = names or [""] * size
    places = range(step - 1, size, step)
    return [(place, experience_label(place + 1, called[place])) for place in places]
