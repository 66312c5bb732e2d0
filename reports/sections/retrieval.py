"""What a report shows of methods that choose an adapter for each image; nothing without one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cl_adapters.reports.figures.files import Drawing
from cl_adapters.reports.figures.parts import MOST_SEEDS, first_seeds
from cl_adapters.reports.figures.retrieval import choice_figure, correction_figure, has_distances
from cl_adapters.reports.groups import Group, Row, file_name
from cl_adapters.reports.load import LoadedRuns
from cl_adapters.reports.retrieval import Retrieval, measure_retrieval
from cl_adapters.reports.tables.retrieval import RetrievalTable

__all__ = ["RetrievalSection", "read_retrievals"]


def read_retrievals(loaded: LoadedRuns) -> dict[Path, Retrieval]:
    """Returns the retrieval of each finished run that has one by its folder.

    A run with a damaged table or event is moved to the broken ones, as `load_runs` does with other
    damage.
    """
    return loaded.read_all(measure_retrieval)


@dataclass(frozen=True)
class RetrievalSection:
    """How the methods of one group choose adapters.

    Attributes:
        group: The methods that are compared.
        by_folder: Retrieval of each run that has one.
        most_seeds: Seeds that the figure of the answers shows, a line each.
    """

    group: Group
    by_folder: Mapping[Path, Retrieval]
    most_seeds: int = MOST_SEEDS

    @cached_property
    def rows(self) -> list[Row]:
        """The methods that choose, each with the runs that recorded it."""
        pairs = (
            (row, tuple(run for run in row.runs if run.folder in self.by_folder))
            for row in self.group.rows
        )
        return [replace(row, runs=runs) for row, runs in pairs if runs]

    @cached_property
    def retrievals(self) -> dict[str, list[Retrieval]]:
        """Retrievals of the runs of each of `rows`, by label."""
        return {row.label: [self.by_folder[run.folder] for run in row.runs] for row in self.rows}

    @cached_property
    def table(self) -> RetrievalTable:
        """What was chosen after the last experience; without rows if no method chooses."""
        return RetrievalTable(self.group, self.rows, self.retrievals)

    def files(self) -> dict[str, str]:
        """Returns the text of every table by file name."""
        return self.table.files()

    def context(self) -> dict[str, Any]:
        """Returns what the page shows beside the figures."""
        return {"retrieval": self.table.scores if self.rows else None}

    def figures(self) -> Iterator[Drawing]:
        """Yields every drawing."""
        numbers = {row.label: number for number, row in enumerate(self.group.rows, start=1)}
        for row in self.rows:
            number = numbers[row.label]
            name = f"retrieval-{number:02d}-{file_name(row.label)}"
            yield self._choice(number, row, name)
            yield self._correction(number, row, f"{name}-correction")

    def _choice(self, number: int, row: Row, name: str) -> Drawing:
        runs = self.retrievals[row.label]
        text = (
            f"Retrieval of {row.label}, after the last experience: which adapter answered the test "
            "images of each experience, in per cent of the row"
        )
        shown = runs[: self.most_seeds]
        is_pair = has_distances(shown)
        if is_pair:
            text += (
                "; and how far frozen adapter j (column) lies from i (row), relative to the size "
                "of i; blank: not known"
            )
        kind = "choice" if is_pair else "answers"  # alone on the page at its own width
        return Drawing(
            kind=kind,
            name=name,
            text=f"{text}.{first_seeds(len(runs), self.most_seeds)}",
            figure=choice_figure(self.group, row, shown),
            table="retrieval-adapters",
            row=number,
        )

    def _correction(self, number: int, row: Row, name: str) -> Drawing:
        text = (
            f"Retrieval of {row.label} over experiences: test images that the adapter of their "
            "experience answered, or was the first asked; that were predicted right though the "
            "first adapter asked would have got them wrong (saved), and the reverse (spoiled); and "
            "adapters asked an image. Bands are 95 % intervals over seeds, none with one seed."
        )
        return Drawing(
            kind="correction",
            name=name,
            text=text,
            figure=correction_figure(self.group, row, self.retrievals[row.label]),
            table="retrieval-runs",
            row=number,
        )
