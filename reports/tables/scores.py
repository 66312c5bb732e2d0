"""A table of means and intervals: one row a method, one column a value, in every form we write."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cl_adapters.reports.definitions import Column
from cl_adapters.reports.groups import Group, Row
from cl_adapters.reports.seeds import Interval
from cl_adapters.reports.tables.latex import latex_table
from cl_adapters.reports.tables.markup import (
    Cell,
    Sheet,
    best_of,
    csv_text,
    heading,
    interval_cell,
)

__all__ = ["ScoreTable", "score_header"]

Marks = Callable[[Column, Sequence[Interval], Sequence[bool]], list[bool]]


def score_header(columns: Sequence[Column], suffix: str = "") -> list[str]:
    """Returns the names of a table's values: what tells the row, then two of each column.

    Args:
        columns: What is shown.
        suffix: Follows the name of each column.
    """
    header = ["stream", "protocol", "mixed_protocols", "method", "num_seeds", "seeds"]
    for column in columns:
        header += [f"{column.name}{suffix}_{part}" for part in ("mean", "ci95")]
    return header


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Means over seeds and their intervals, by method and column.

    Attributes:
        group: The methods that are compared.
        rows: Those that the table shows, each with the runs that it is about.
        columns: What it shows of them.
        interval: Mean and interval of a row's column.
        stem: Its files are called `<slug of the group>-<stem>`.
        caption: What it shows, as a sentence part.
        notes: What a reader must know, below the table.
        marks: Which values of a column stand out; the best of several unless said otherwise.
        is_signed: Whether numbers carry a plus sign.
        signs: What else is said of each value of a column.
        suffix: End of the columns' names in the CSV file.
        title: Heading of a column in Markdown and LaTeX.
        tells_seeds: Whether the number of seeds has a column there.
    """

    group: Group
    rows: Sequence[Row]
    columns: Sequence[Column]
    interval: Callable[[Row, Column], Interval]
    stem: str
    caption: str
    notes: Sequence[str] = ()
    marks: Marks = best_of
    is_signed: bool = False
    signs: Callable[[Sequence[Interval]], list[str]] = lambda intervals: [""] * len(intervals)
    suffix: str = ""
    title: Callable[[Column], str] = heading
    tells_seeds: bool = True

    def cells(self, column: Column) -> list[Cell]:
        """Returns one column, a cell a row."""
        intervals = [self.interval(row, column) for row in self.rows]
        marks = self.marks(column, intervals, [not row.is_upper_bound for row in self.rows])
        return [
            interval_cell(column, interval, is_best=mark, is_signed=self.is_signed, sign=sign)
            for interval, mark, sign in zip(intervals, marks, self.signs(intervals), strict=True)
        ]

    def lines(self) -> list[dict[str, Any]]:
        """Returns label, seeds and cells of each row, as the page shows them."""
        by_column = [self.cells(column) for column in self.columns]
        return [
            {
                "label": row.label,
                "number": [each.label for each in self.group.rows].index(row.label) + 1,
                "is_upper_bound": row.is_upper_bound,
                "seeds": self.group.seeds_of(row),
                "cells": [cells[number] for cells in by_column],
            }
            for number, row in enumerate(self.rows)
        ]

    def files(self) -> dict[str, str]:
        """Returns the table as CSV, Markdown and LaTeX by file name; nothing without rows."""
        if not self.rows:
            return {}
        start, sheet = f"{self.group.slug}-{self.stem}", self.sheet()
        return {
            f"{start}.csv": self.csv(),
            f"{start}.md": sheet.markdown(),
            f"{start}.tex": latex_table(sheet),
        }

    def sheet(self) -> Sheet:
        """Returns the table as text."""
        mixed = self.group.mixed
        mark = f" {mixed[0].upper()}{mixed[1:]}." if mixed else ""
        return Sheet(
            caption=f"{self.group.stream}: {self.caption}{mark}",
            headings=["Method", "Seeds", *map(self.title, self.columns)],
            rows=[(line["label"], line["seeds"], line["cells"]) for line in self.lines()],
            notes=self.notes,
            name=f"{self.group.slug}-{self.stem}",
            tells_seeds=self.tells_seeds,
        )

    def csv(self) -> str:
        """Returns mean and half the interval of every value."""
        return csv_text(score_header(self.columns, self.suffix), map(self.numbers, self.rows))

    def numbers(self, row: Row) -> list[object]:
        """Returns what stands below `score_header` for a row."""
        names = [self.group.stream, row.protocol, self.group.mixed, row.label]
        line: list[object] = [*names, len(row.seeds), " ".join(map(str, row.seeds))]
        for column in self.columns:
            interval = self.interval(row, column)
            line += [float(interval.mean), float(interval.half_width)]
        return line
