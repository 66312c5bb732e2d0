"""Rows of text as CSV and Markdown; `latex` writes them for a paper."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cl_adapters.reports.definitions import Column, format_number
from cl_adapters.reports.seeds import Interval

__all__ = ["Cell", "Sheet", "best_of", "csv_text", "definition", "heading", "interval_cell"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One value of a table: mean and interval as text, and whether it stands out.

    Attributes:
        mean: The mean.
        half_width: Half of the interval; empty where there is none.
        is_best: Whether it is the best of its column: bold, and in colour on the page.
        sign: What else is said of it, a character behind it.
    """

    mean: str
    half_width: str
    is_best: bool
    sign: str = ""

    @property
    def text(self) -> str:
        """Mean, interval and sign in one."""
        text = f"{self.mean} ± {self.half_width}" if self.half_width else self.mean
        return f"{text} {self.sign}" if self.sign else text


def best_of(column: Column, intervals: Sequence[Interval], is_rival: Sequence[bool]) -> list[bool]:
    """Returns which values are the best of a column; none if all rivals are level.

    Args:
        column: Says in which direction it improves.
        intervals: Mean and interval of each row.
        is_rival: Whether a row may be the best.
    """
    means = [float(interval.mean) for interval in intervals]
    pairs = list(zip(means, is_rival, strict=True))
    rivals = [mean for mean, is_one in pairs if is_one and not math.isnan(mean)]
    if len(set(rivals)) < 2 or column.better == "neither":
        return [False] * len(means)
    best = max(rivals) if column.better == "higher" else min(rivals)
    return [is_one and mean == best for mean, is_one in pairs]


def interval_cell(
    column: Column,
    interval: Interval,
    *,
    is_best: bool = False,
    is_signed: bool = False,
    sign: str = "",
) -> Cell:
    """Returns a mean and its interval as text; without one where there is none.

    Args:
        column: Says how many digits are shown.
        interval: Mean and interval.
        is_best: Whether the cell stands out.
        is_signed: Whether a number above 0 gets a plus sign.
        sign: What else is said of it.
    """
    mean, half = float(interval.mean), float(interval.half_width)
    is_plain = math.isnan(half) or (half == 0.0 and column.unit != "%" and not is_signed)
    text = format_number(mean, column.digits)
    return Cell(
        mean=f"+{text}" if is_signed and mean > 0 and text.strip("0.") else text,
        half_width="" if is_plain else format_number(half, column.digits),
        is_best=is_best,
        sign=sign,
    )


def heading(column: Column) -> str:
    """Returns a column's heading with its unit and the direction in which it improves."""
    arrow = {"higher": " ↑", "lower": " ↓", "neither": ""}[column.better]
    unit = f" ({column.unit})" if column.unit else ""
    return f"{column.heading}{unit}{arrow}"


def definition(column: Column) -> str:
    """Returns a column's heading with its formula and remark, as below a table."""
    return f"{column.heading}: {column.formula}. {column.remark}".strip()


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of text.

    Attributes:
        caption: What it shows.
        headings: Two for label and seeds, then one a column.
        rows: Label, seeds and the cells of each row.
        notes: What a reader must know, below the table.
        name: What a text refers to it by.
        tells_seeds: Whether the number of seeds has a column.
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[Cell]]]
    notes: Sequence[str]
    name: str = ""
    tells_seeds: bool = True

    def shown(self, line: Sequence[str]) -> list[str]:
        """Returns the texts of a line, headings or row, that the table shows."""
        return [text for place, text in enumerate(line) if place != 1 or self.tells_seeds]

    def markdown(self) -> str:
        """Returns a Markdown table."""
        headings = self.shown(self.headings)
        lines = [headings, ["---"] + ["---:"] * (len(headings) - 1)]
        for label, seeds, cells in self.rows:
            texts = [f"**{cell.text}**" if cell.is_best else cell.text for cell in cells]
            lines.append(self.shown([_escape_markdown(label), seeds, *texts]))
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        notes = "".join(f"\n- {_escape_markdown(note)}" for note in self.notes)
        return f"{_escape_markdown(self.caption)}\n\n{body}\n{notes and notes + chr(10)}"


def _escape_markdown(text: str) -> str:
    special = "\\`*_{}[]<>|#!~$"
    return "".join(f"\\{letter}" if letter in special else letter for letter in text)


_FORMULA: Final = frozenset("=+-@\t\r")


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a CSV file; a number that is not one is an empty field."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_csv_value(value) for value in row])
    return buffer.getvalue()


def _csv_value(value: object) -> object:
    if isinstance(value, str):
        # A spreadsheet would compute what begins so; with a quote it takes it for text. A return
        # alone is the end of a row to some readers.
        is_formula = value != "" and value[0] in _FORMULA
        return (f"'{value}" if is_formula else value).replace("\r", " ")
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else round(float(value), 6)
    return value
