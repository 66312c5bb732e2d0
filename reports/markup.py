"""Rows of text as CSV, Markdown and LaTeX."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cl_adapters.reports.definitions import Column, format_number
from cl_adapters.reports.seeds import Interval

__all__ = ["Cell", "Sheet", "csv_text", "heading", "interval_cells"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One value of the comparison: mean and interval as text, and whether it is the best."""

    mean: str
    half_width: str
    is_best: bool

    @property
    def text(self) -> str:
        """Mean and interval in one."""
        return f"{self.mean} ± {self.half_width}" if self.half_width else self.mean


def interval_cells(
    column: Column, intervals: Sequence[Interval], is_rival: Sequence[bool]
) -> list[Cell]:
    """Returns one column of a table, a cell a row; the best of several rivals is marked.

    Args:
        column: What is shown.
        intervals: Mean and interval of each row.
        is_rival: Whether a row may be the best.
    """
    means = [float(interval.mean) for interval in intervals]
    rivals = [
        mean
        for mean, is_one in zip(means, is_rival, strict=True)
        if is_one and not math.isnan(mean)
    ]
    best = None
    if len(set(rivals)) > 1 and column.better != "neither":
        best = max(rivals) if column.better == "higher" else min(rivals)
    column_cells = []
    for mean, interval, is_one in zip(means, intervals, is_rival, strict=True):
        half = float(interval.half_width)
        is_plain = math.isnan(half) or (half == 0.0 and column.unit != "%")
        column_cells.append(
            Cell(
                mean=format_number(mean, column.digits),
                half_width="" if is_plain else format_number(half, column.digits),
                is_best=best is not None and mean == best and is_one,
            )
        )
    return column_cells


def heading(column: Column) -> str:
    """Returns a column's heading with its unit and the direction in which it improves."""
    arrow = {"higher": " ↑", "lower": " ↓", "neither": ""}[column.better]
    unit = f" ({column.unit})" if column.unit else ""
    return f"{column.heading}{unit}{arrow}"


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of text.

    Attributes:
        caption: What it shows.
        headings: Two for label and seeds, then one a column.
        rows: Label, number of seeds and the cells of each row.
        notes: What a reader must know, below the table.
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[tuple[str, int, Sequence[Cell]]]
    notes: Sequence[str]

    def markdown(self) -> str:
        """Returns a Markdown table."""
        lines = [list(self.headings), ["---"] + ["---:"] * (len(self.headings) - 1)]
        for label, num_seeds, cells in self.rows:
            texts = [f"**{cell.text}**" if cell.is_best else cell.text for cell in cells]
            lines.append([_escape_markdown(label), str(num_seeds), *texts])
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        notes = "".join(f"\n- {_escape_markdown(note)}" for note in self.notes)
        return f"{_escape_markdown(self.caption)}\n\n{body}\n{notes and notes + chr(10)}"

    def latex(self) -> str:
        """Returns a LaTeX table for the booktabs package."""
        lines = [" & ".join(map(_escape_latex, self.headings)) + r" \\", r"\midrule"]
        for label, num_seeds, cells in self.rows:
            texts = [_escape_latex(cell.text) for cell in cells]
            bold = [
                rf"\textbf{{{text}}}" if cell.is_best else text
                for text, cell in zip(texts, cells, strict=True)
            ]
            lines.append(" & ".join([_escape_latex(label), str(num_seeds), *bold]) + r" \\")
        notes = [f"% {note}" for note in self.notes]
        head = [r"\begin{table}", r"\centering", rf"\caption{{{_escape_latex(self.caption)}}}"]
        begin = [rf"\begin{{tabular}}{{l{'r' * (len(self.headings) - 1)}}}", r"\toprule"]
        end = [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        return "\n".join(notes + head + begin + lines + end) + "\n"


def _escape_markdown(text: str) -> str:
    special = "\\`*_{}[]<>|#!~$"
    return "".join(f"\\{letter}" if letter in special else letter for letter in text)


_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    "\u2212": "$-$",
    "\u2013": "--",
    "\u221e": r"$\infty$",
    "\u202f": r"\,",
    **{letter: f"\\{letter}" for letter in "#$%&_{}"},
}


def _escape_latex(text: str) -> str:
    return "".join(_LATEX_SPECIAL.get(letter, letter) for letter in text)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a CSV file; a number that is not one is an empty field."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_csv_value(value) for value in row])
    return buffer.getvalue()


def _csv_value(value: object) -> object:
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else round(float(value), 6)
    return value
