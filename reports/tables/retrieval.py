"""The retrieval table, and everything that is drawn of retrieval as CSV."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final

import numpy as np

from cl_adapters.reports.definitions import Better, Column
from cl_adapters.reports.groups import Group, Row
from cl_adapters.reports.retrieval import Retrieval
from cl_adapters.reports.seeds import Interval, mean_interval
from cl_adapters.reports.tables.markup import csv_text, definition
from cl_adapters.reports.tables.scores import ScoreTable

__all__ = ["RETRIEVAL_MEASURES", "RetrievalTable"]


def _share(name: str, title: str, better: Better, claim: str, remark: str = "") -> Column:
    return Column(
        name=name,
        heading=title,
        unit="%",
        better=better,
        digits=2,
        formula=f"{claim} / test samples, over all classes, after the last experience T",
        remark=remark,
    )


# `retrieval.shares` computes them. The adapter of a sample is that of its experience.
RETRIEVAL_MEASURES: Final = (
    _share(
        "right_adapter",
        "Right adapter",
        "higher",
        "samples that the adapter of their experience answered",
    ),
    _share(
        "right_first_adapter",
        "Right first adapter",
        "higher",
        "samples whose first adapter is that of their experience",
        "What the retrieval started from.",
    ),
    _share(
        "corrected",
        "Corrected",
        "neither",
        "samples that another adapter answered than the first asked",
        "All others were kept.",
    ),
    _share(
        "saved",
        "Saved",
        "higher",
        "samples predicted right that the first adapter alone would have got wrong",
        "By correction or by what the method adds to it, such as a vote beside the adapters; the "
        "records do not tell them apart.",
    ),
    _share(
        "spoiled",
        "Spoiled",
        "lower",
        "samples predicted wrong that the first adapter alone would have got right",
        "As for saved.",
    ),
    Column(
        name="rounds",
        heading="Adapters asked",
        unit="",
        better="neither",
        digits=2,
        formula="mean over the test samples of the adapters asked, after the last experience T",
        remark="1 is the least: the first adapter confirmed itself.",
    ),
)


class RetrievalTable:
    """How each method chose its adapters after the last experience.

    Args:
        group: The methods that are compared.
        rows: Those that choose, with the runs that recorded it.
        retrievals: Of the runs of each row, by label.
    """

    def __init__(
        self, group: Group, rows: Sequence[Row], retrievals: Mapping[str, Sequence[Retrieval]]
    ) -> None:
        self.group = group
        self.rows = rows
        self._retrievals = retrievals

    @cached_property
    def scores(self) -> ScoreTable:
        """Means and intervals."""
        return ScoreTable(
            group=self.group,
            rows=self.rows,
            columns=RETRIEVAL_MEASURES,
            interval=self.interval,
            stem="retrieval",
            caption="how adapters were chosen; mean and 95 % interval over seeds (Student's t); "
            "best in bold.",
            notes=[*map(definition, RETRIEVAL_MEASURES)],
        )

    def interval(self, row: Row, column: Column) -> Interval:
        """Returns mean and interval over the seeds."""
        runs = self._retrievals[row.label]
        return mean_interval(np.array([run.shares[column.name][-1] for run in runs]))

    def files(self) -> dict[str, str]:
        """Returns the table and what it comes from by file name; nothing without rows."""
        if not self.rows:
            return {}
        start = f"{self.group.slug}-retrieval"
        files = self.scores.files()
        names = [column.name for column in RETRIEVAL_MEASURES]
        parts = {
            "runs": (["experience", *names], _measures),
            "rounds": (["experience", "adapters_asked", "share"], _rounds),
            "adapters": (["target_experience", "adapter", "share_answered", "distance"], _adapters),
        }
        for name, (header, lines) in parts.items():
            rows = ([*keys, *line] for keys, run in self._runs() for line in lines(run))
            files[f"{start}-{name}.csv"] = csv_text(["protocol", "method", "seed", *header], rows)
        return files

    def _runs(self) -> Iterator[tuple[list[object], Retrieval]]:
        for row in self.rows:
            for seed, run in zip(row.seeds, self._retrievals[row.label], strict=True):
                yield [row.protocol, row.label, seed], run


def _measures(run: Retrieval) -> Iterator[list[object]]:
    for t in range(run.num_experiences):
        yield [t, *(run.shares[column.name][t] for column in RETRIEVAL_MEASURES)]


def _rounds(run: Retrieval) -> Iterator[list[object]]:
    for t, number in np.argwhere(~np.isnan(run.rounds)).tolist():
        yield [t, number + 1, run.rounds[t, number]]


def _adapters(run: Retrieval) -> Iterator[list[object]]:
    for i, k in np.ndindex(run.confusion.shape):
        distance = math.nan if run.drift is None else run.drift[i, k]
        yield [i, k, run.confusion[i, k], distance]
