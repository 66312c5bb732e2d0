"""The retrieval table, and everything that is drawn of retrieval as CSV."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from cl_adapters.reports.definitions import Better, Column
from cl_adapters.reports.groups import Group, Row
from cl_adapters.reports.markup import Cell, Sheet, csv_text, heading, interval_cells
from cl_adapters.reports.retrieval import Retrieval
from cl_adapters.reports.seeds import Interval, mean_interval

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

    def interval(self, row: Row, column: Column) -> Interval:
        """Returns mean and interval over the seeds."""
        runs = self._retrievals[row.label]
        return mean_interval(np.array([run.shares[column.name][-1] for run in runs]))

    def cells(self, column: Column) -> list[Cell]:
        """Returns one column, a cell a row."""
        intervals = [self.interval(row, column) for row in self.rows]
        return interval_cells(column, intervals, [not row.is_upper_bound for row in self.rows])

    def files(self) -> dict[str, str]:
        """Returns the table and what it comes from by file name; nothing without rows."""
        if not self.rows:
            return {}
        start, sheet = f"{self.group.slug}-retrieval", self._sheet()
        files = {
            f"{start}.csv": self._means_csv(),
            f"{start}.md": sheet.markdown(),
            f"{start}.tex": sheet.latex(),
        }
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

    def _sheet(self) -> Sheet:
        columns = [self.cells(column) for column in RETRIEVAL_MEASURES]
        mark = self.group.mixed and f" {self.group.mixed[0].upper()}{self.group.mixed[1:]}."
        return Sheet(
            caption=f"{self.group.stream}: how adapters were chosen; mean and 95 % interval over "
            f"seeds (Student's t); best in bold.{mark}",
            headings=["Method", "Seeds", *map(heading, RETRIEVAL_MEASURES)],
            rows=[
                (row.label, len(row.seeds), [column[number] for column in columns])
                for number, row in enumerate(self.rows)
            ],
            notes=[
                f"{column.heading}: {column.formula}. {column.remark}".strip()
                for column in RETRIEVAL_MEASURES
            ],
        )

    def _means_csv(self) -> str:
        header = ["stream", "protocol", "mixed_protocols", "method", "num_seeds", "seeds"]
        for column in RETRIEVAL_MEASURES:
            header += [f"{column.name}_mean", f"{column.name}_ci95"]
        rows = []
        for row in self.rows:
            names = [self.group.stream, row.protocol, self.group.mixed, row.label]
            line: list[object] = [*names, len(row.seeds), " ".join(map(str, row.seeds))]
            for column in RETRIEVAL_MEASURES:
                interval = self.interval(row, column)
                line += [float(interval.mean), float(interval.half_width)]
            rows.append(line)
        return csv_text(header, rows)


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
