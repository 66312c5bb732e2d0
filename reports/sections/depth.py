"""One method in depth: its matrix, its classes, its confusions and its calibration."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cl_adapters.reports.figures.calibration import calibration_figure
from cl_adapters.reports.figures.classes import MOST_CLASSES, classes_figure
from cl_adapters.reports.figures.confusion import confusion_figure, confusion_of
from cl_adapters.reports.figures.files import Drawing
from cl_adapters.reports.figures.matrix import matrix_figure
from cl_adapters.reports.groups import Group, Row, file_name
from cl_adapters.reports.tables.depth import depth_files

__all__ = ["DepthSection"]


@dataclass(frozen=True)
class DepthSection:
    """What a report shows of every method.

    Attributes:
        group: The methods.
    """

    group: Group

    def files(self) -> dict[str, str]:
        """Returns the text of every table by file name."""
        return depth_files(self.group)

    def context(self) -> dict[str, Any]:
        """Returns what the page shows beside the figures: nothing."""
        return {}

    def figures(self) -> Iterator[Drawing]:
        """Yields every drawing."""
        for number, row in enumerate(self.group.rows, start=1):
            name = f"{number:02d}-{file_name(row.label)}"
            yield self._matrix(number, row, name)
            yield self._confusion(number, row, name)
            yield self._classes(number, row, name)
            yield self._calibration(number, row, name)

    def _matrix(self, number: int, row: Row, name: str) -> Drawing:
        return Drawing(
            kind="matrix",
            name=f"matrix-{name}",
            text=f"Accuracy matrix R[t, i] of {row.label}; mean over seeds.",
            figure=matrix_figure(self.group, row),
            table="matrix",
            row=number,
        )

    def _confusion(self, number: int, row: Row, name: str) -> Drawing:
        confusion = confusion_of(row)
        whose = (
            "all seeds together"
            if len(confusion.seeds) == len(row.seeds)
            else f"seed {confusion.seeds[0]} alone, as seeds have class orders of their own"
        )
        return Drawing(
            kind="matrix",
            name=f"confusion-{name}",
            text=f"Confusion matrix of {row.label} after the last experience, {whose}; classes in "
            "the order in which they came, lines between experiences; what is right stands on the "
            "diagonal, what is wrong beside it in red.",
            figure=confusion_figure(self.group, row, confusion),
            table="confusion",
            row=number,
        )

    def _classes(self, number: int, row: Row, name: str) -> Drawing:
        return Drawing(
            kind="classes",
            name=f"classes-{name}",
            text=f"Classes on which {row.label} ends worst and best, up to {MOST_CLASSES} each: "
            "accuracy from 0 to 100 % after each experience since the class was learned, a curve a "
            "seed; the number is the mean over seeds at the end.",
            figure=classes_figure(self.group, row),
            table="class-curves",
            row=number,
        )

    def _calibration(self, number: int, row: Row, name: str) -> Drawing:
        return Drawing(
            kind="calibration",
            name=f"calibration-{name}",
            text=f"Calibration of {row.label}: accuracy against confidence, all seeds together, "
            "bins with fewer than 10 images left out; and accuracy, mean confidence and ECE over "
            "experiences, with 95 % intervals over seeds.",
            figure=calibration_figure(self.group, row),
            table="calibration",
            row=number,
        )
