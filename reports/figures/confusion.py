"""What is taken for what after the last experience, classes in the order in which they came."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cl_adapters.reports.figures.cells import Cells, draw_cells
from cl_adapters.reports.figures.parts import mark_mixed, short_label
from cl_adapters.reports.groups import Group, Row

__all__ = ["Confusion", "confusion_figure", "confusion_of"]

_MOST_NAMED: Final = 24  # classes up to which each has its name


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """A confusion matrix.

    Attributes:
        seeds: Of which it is the sum: all, or the first one where class orders differ.
        names: Names of the classes, by experience.
        starts: Place of the first class of each experience but the first.
        shares: [i, j] is the percentage of the test samples of class i predicted as j; NaN where a
            class has none.
    """

    seeds: tuple[int, ...]
    names: tuple[str, ...]
    starts: tuple[int, ...]
    shares: NDArray[np.float64]


def confusion_of(row: Row) -> Confusion:
    """Returns the confusion matrix of a method after the last experience."""
    first = row.runs[0].record
    runs = [run for run in row.runs if run.record.classes == first.classes]
    if len(runs) < len(row.runs):
        runs = runs[:1]
    # By the experience that brings a class first; most orders are that already.
    order = list(dict.fromkeys(c for classes in first.experiences for c in sorted(classes)))
    order += [c for c in range(len(first.classes)) if c not in set(order)]
    counts = np.zeros((len(order), len(order)))
    for run in runs:
        target, guess, number = run.detail.confusion.T
        np.add.at(counts, (target, guess), number)
    counts = counts[np.ix_(order, order)]
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.full(counts.shape, np.nan)
    np.divide(100 * counts, totals, out=shares, where=totals > 0)
    return Confusion(
        seeds=tuple(run.record.seed for run in runs),
        names=tuple(str(first.classes[c]) for c in order),
        starts=_starts(first.experiences),
        shares=shares,
    )


def _starts(experiences: list[list[int]]) -> tuple[int, ...]:
    seen: set[int] = set()
    starts = []
    for classes in experiences:
        if seen and set(classes) - seen:
            starts.append(len(seen))
        seen |= set(classes)
    return tuple(starts)


def confusion_figure(group: Group, row: Row, confusion: Confusion) -> Figure:
    """Draws a confusion matrix with lines between experiences.

    Args:
        group: What the method is compared with.
        row: The method.
        confusion: Of the method.
    """
    size = len(confusion.names)
    is_named = size <= _MOST_NAMED
    names = [short_label(name, 16) for name in confusion.names]
    margin = 0.42 + 0.066 * max(map(len, names)) if is_named else 0.58
    side = float(np.clip(0.2 * size, 2.4, 4.4))
    top = 0.66 if group.mixed else 0.36
    width, height = margin + side + 0.9, margin + side + top
    figure = Figure((width, height))
    mark_mixed(figure, group)
    step = 1 if is_named else 10 if size > 30 else 5
    texts = names if is_named else [str(place + 1) for place in range(size)]
    labels = [(place, texts[place]) for place in range(step - 1, size, step)]
    cells = Cells(
        values=confusion.shares,
        columns=labels,
        rows=labels,
        titles=("Prediction", "Class of the test image", "Images of the class (%): right | wrong"),
        is_turned=is_named,
        is_wrong=~np.eye(size, dtype=bool),
    )
    axes = draw_cells(figure, (margin, margin, side, side), cells, "confusion-cells")
    lines = [[(start, 0), (start, size)] for start in confusion.starts]
    lines += [[(0, start), (size, start)] for start in confusion.starts]
    for colour, thickness in (("#FEFEFE", 0.9), ("#808080", 0.5)):
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=thickness))
    seeds = ", ".join(map(str, confusion.seeds))
    whose = "all seeds" if len(confusion.seeds) == len(row.seeds) > 1 else f"seed {seeds}"
    title = f"{short_label(row.label, 38)}, {whose}"
    figure.text(0.1 / width, 1 - (top - 0.14) / height, title, fontsize=9, va="bottom")
    return figure
