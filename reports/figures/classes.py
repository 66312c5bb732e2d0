"""The classes that a method ends worst and best on: their accuracy over experiences, by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cl_adapters.reports.figures.parts import mark_mixed, short_label
from cl_adapters.reports.groups import Group, Row
from cl_adapters.reports.looks import COLOURS

__all__ = ["MOST_CLASSES", "ClassCurves", "class_curves", "classes_figure"]

MOST_CLASSES: Final = 10  # worst, and as many best
_ROW, _TOP, _BOTTOM = 0.34, 0.62, 0.52  # inches
_LOOKS: Final = ((COLOURS[0], "-"), (COLOURS[1], (0, (4, 1.5))), (COLOURS[2], (0, (1, 1))))


@dataclass(frozen=True, kw_only=True)
class ClassCurves:
    """The accuracy on one class.

    Attributes:
        name: Name of the class.
        last: Mean over seeds of the accuracy after the last experience, in percent.
        curves: One row a seed, one column an experience; NaN before the class was learned.
    """

    name: str
    last: float
    curves: NDArray[np.float64]


def class_curves(row: Row) -> list[ClassCurves]:
    """Returns the classes of a method, worst first; level ones by name.

    A class is found by its name: its place in the order may differ from seed to seed.
    """
    found: dict[str, list[NDArray[np.float64]]] = {}
    for run in row.runs:
        for position, name in enumerate(run.record.classes):
            found.setdefault(str(name), []).append(run.detail.class_curves[:, position])
    classes = []
    for name, curves in found.items():
        table = np.stack(curves)
        known = table[~np.isnan(table[:, -1]), -1]
        if known.size:
            classes.append(ClassCurves(name=name, last=float(known.mean()), curves=table))
    return sorted(classes, key=lambda each: (each.last, each.name))


def classes_figure(group: Group, row: Row) -> Figure:
    """Draws a small curve a class and seed: the worst classes on the left, the best on the right.

    Args:
        group: What the method is compared with.
        row: The method.
    """
    classes = class_curves(row)
    most = min(MOST_CLASSES, -(-len(classes) // 2)) if len(classes) > 1 else 1
    sides = [("Worst at the end", classes[:most])]
    if classes[most:]:
        sides.append(("Best at the end", classes[max(most, len(classes) - most) :][::-1]))
    longest = max(len(short_label(each.name, 22)) for _, side in sides for each in side)
    names, width = 0.12 + 0.075 * longest, 2.15
    side_width = names + width + 0.55
    top = _TOP + (0.2 if group.mixed else 0)
    size = (0.1 + side_width * len(sides), top + _ROW * most + _BOTTOM)
    figure = Figure(size)
    mark_mixed(figure, group)
    title = f"{short_label(row.label, 44)}, {group.seeds_text(row)}, a curve each"
    figure.text(0.1 / size[0], 1 - (top - 0.34) / size[1], title, fontsize=9.5, va="bottom")
    for number, (heading, side) in enumerate(sides):
        left = 0.1 + number * side_width + names
        place = (left / size[0], _BOTTOM / size[1], width / size[0], _ROW * most / size[1])
        _side(figure.add_axes(place), heading, side, most)
    return figure


def _side(axes: Axes, heading: str, side: Sequence[ClassCurves], most: int) -> None:
    length = side[0].curves.shape[1]
    axes.set_axis_off()  # drawn by hand: ten rows of ticks would take longer than all the rest
    axes.set_xlim(1 - 0.02 * length, length + 0.02 * length)
    axes.set_ylim(most, 0)
    ends = axes.get_xlim()
    # A row is 1 high; of it 0.8 are the scale from 0 to 100 %.
    rules = [[(ends[0], y), (ends[1], y)] for line in range(len(side)) for y in _scale(line)]
    _add(axes, rules, colors="#E3E3E3", linewidths=0.7)
    for number, (colour, look) in enumerate(_LOOKS):
        _draw(axes, [each.curves[number :: len(_LOOKS)] for each in side], colour, look)
    for line, each in enumerate(side):
        name = short_label(each.name, 22)
        axes.text(ends[0], line + 0.5, f"{name} ", ha="right", va="center", fontsize=8)
        axes.text(ends[1], line + 0.5, f" {each.last:.0f} %", ha="left", va="center", fontsize=8)
    axes.set_title(heading, fontsize=9, pad=4)
    for place in sorted({1, (length + 1) // 2, length}):
        axes.text(place, most + 0.32, str(place), ha="center", va="center", fontsize=7.5)
    axes.text(sum(ends) / 2, most + 0.95, "After experience", ha="center", va="center", fontsize=8)


def _scale(line: int) -> tuple[float, float]:
    return line + 0.9, line + 0.1


def _draw(axes: Axes, rows: Sequence[NDArray[np.float64]], colour: str, look: Any) -> None:  # noqa: ANN401 - matplotlib's line styles
    # Those of all classes at once: line by line they would take most of the time.
    lines: list[NDArray[np.float64]] = []
    dots: list[NDArray[np.float64]] = []
    for line, curves in enumerate(rows):
        base, top = _scale(line)
        for curve in curves:
            known = np.flatnonzero(~np.isnan(curve))
            points = np.stack([known + 1.0, base + (top - base) * curve[known] / 100], axis=1)
            (lines if len(points) > 1 else dots).append(points)
    _add(axes, lines, colors=colour, linestyles=look, linewidths=1.1)
    if dots:
        x, y = np.concatenate(dots).T
        axes.plot(x, y, linestyle="none", marker="o", markersize=3, color=colour)


def _add(axes: Axes, lines: Sequence[Any], **look: Any) -> None:  # noqa: ANN401 - matplotlib's
    axes.add_collection(LineCollection(lines, **look), autolim=False)
