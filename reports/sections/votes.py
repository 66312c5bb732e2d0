"""What a report shows of methods whose two experts vote; nothing without one that recorded it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cl_adapters.reports.figures.files import Drawing
from cl_adapters.reports.figures.votes import votes_figure
from cl_adapters.reports.groups import Group, Row, file_name
from cl_adapters.reports.load import LoadedRuns
from cl_adapters.reports.tables.markup import csv_text
from cl_adapters.reports.votes import VOTE_SHARES, Votes, read_votes

__all__ = ["VotesSection", "read_all_votes"]


def read_all_votes(loaded: LoadedRuns) -> dict[Path, Votes]:
    """Returns the votes of each finished run that has some by its folder.

    A run with a damaged event is moved to the broken ones, as `load_runs` does with other damage.
    """
    return loaded.read_all(read_votes)


@dataclass(frozen=True)
class VotesSection:
    """How the experts of the methods of one group vote.

    Attributes:
        group: The methods that are compared.
        by_folder: Votes of each run that recorded them.
    """

    group: Group
    by_folder: Mapping[Path, Votes]

    @cached_property
    def rows(self) -> list[tuple[int, Row]]:
        """The methods with recorded votes and their numbers, each with the runs that did."""
        pairs = (
            (number, replace(row, runs=tuple(r for r in row.runs if r.folder in self.by_folder)))
            for number, row in enumerate(self.group.rows, start=1)
        )
        return [(number, row) for number, row in pairs if row.runs]

    def files(self) -> dict[str, str]:
        """Returns the text of every table by file name."""
        if not self.rows:
            return {}
        rows = (
            [row.protocol, row.label, run.record.seed, *line]
            for _, row in self.rows
            for run in row.runs
            for line in _lines(self.by_folder[run.folder])
        )
        header = ["protocol", "method", "seed", "kind", "experience", *VOTE_SHARES]
        return {f"{self.group.slug}-votes.csv": csv_text(header, rows)}

    def context(self) -> dict[str, Any]:
        """Returns what the page shows beside the figures: nothing."""
        return {}

    def figures(self) -> Iterator[Drawing]:
        """Yields every drawing."""
        for number, row in self.rows:
            votes = [self.by_folder[run.folder] for run in row.runs]
            yield Drawing(
                kind="votes",
                name=f"votes-{number:02d}-{file_name(row.label)}",
                text=f"Votes of {row.label}: test images on which the online and the offline "
                "expert choose different classes, and of these those that one, the other or their "
                "vote gets right, in per cent of all; mean over seeds, bands are 95 % intervals.",
                figure=votes_figure(self.group, row, votes),
                table="votes",
                row=number,
            )


def _lines(votes: Votes) -> Iterator[list[object]]:
    for kind, shares in (("after", votes.over_time), ("images_of", votes.by_experience)):
        for t in range(len(shares["differ"])):
            yield [kind, t, *(shares[name][t] for name in VOTE_SHARES)]
