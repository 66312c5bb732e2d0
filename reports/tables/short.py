"""The table of a terminal: what a method reaches, forgets and costs, a line a method."""

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Final

from cl_adapters.reports.definitions import COLUMNS, MAIN_COLUMNS
from cl_adapters.reports.groups import Group, Row, stream_names
from cl_adapters.reports.tables.comparison import comparison_table

__all__ = ["short_rows"]

_PARTS: Final = ("train", "evaluation")


def short_rows(groups: Sequence[Group]) -> Iterator[tuple[str, ...]]:
    """Yields the header, then a row a method; minutes are those of training and testing a run.

    A stream is told with its protocol where two have one name.
    """
    known = {column.name: column for column in COLUMNS}
    columns = [known[name] for name in MAIN_COLUMNS if not name.endswith("_seconds")]
    headings = (f"{item.heading} ({item.unit})" if item.unit else item.heading for item in columns)
    yield ("Stream", "Method", "Seeds", *headings, "Minutes")
    for stream, group in zip(stream_names(groups), groups, strict=True):
        table = comparison_table(group)
        by_column = [table.cells(column) for column in columns]
        for number, row in enumerate(group.rows):
            texts = [cells[number].text for cells in by_column]
            yield (stream, row.label, group.seeds_of(row), *texts, _minutes(row))


def _minutes(row: Row) -> str:
    parts = (run.values[f"{part}_seconds"] for run in row.runs for part in _PARTS)
    spent = fmean(parts) * len(_PARTS)
    return "" if math.isnan(spent) else f"{spent / 60:.1f}"
