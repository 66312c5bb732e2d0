"""The comparison as rows of text, and its CSV, Markdown and LaTeX forms."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cl_adapters.reports.definitions import COLUMNS, Column, format_number
from cl_adapters.reports.groups import Group, Row

__all__ = ["Cell", "cells", "latex_table", "markdown_table", "shown_columns", "table_files"]


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


def shown_columns(group: Group) -> list[Column]:
    """Returns the columns for which some run of the group has a value, or that are always defined.

    Forgetting stays with a dash in a stream of one experience; forward transfer and costs that no
    record holds are left out.
    """
    always = {column.name for column in COLUMNS if column.unit == "%"} - {"fwt_without_baseline"}
    return [
        column
        for column in COLUMNS
        if column.name in always
        or any(not math.isnan(run.values[column.name]) for row in group.rows for run in row.runs)
    ]


def cells(group: Group, column: Column) -> list[Cell]:
    """Returns one column of the comparison, a cell a row; the best of several is marked."""
    intervals = [row.interval(column.name) for row in group.rows]
    means = [float(interval.mean) for interval in intervals]
    rivals = [
        mean
        for mean, row in zip(means, group.rows, strict=True)
        if not row.is_upper_bound and not math.isnan(mean)
    ]
    best = (
        (max(rivals) if column.better == "higher" else min(rivals))
        if len(set(rivals)) > 1
        else None
    )
    column_cells = []
    for row, mean, interval in zip(group.rows, means, intervals, strict=True):
        half = float(interval.half_width)
        is_plain = math.isnan(half) or (half == 0.0 and column.unit != "%")
        column_cells.append(
            Cell(
                mean=format_number(mean, column.digits),
                half_width="" if is_plain else format_number(half, column.digits),
                is_best=best is not None and mean == best and not row.is_upper_bound,
            )
        )
    return column_cells


def table_files(group: Group) -> dict[str, str]:
    """Returns the text of every table of a group by file name."""
    slug = group.slug
    return {
        f"{slug}-comparison.csv": _comparison_csv(group),
        f"{slug}-comparison.md": markdown_table(group),
        f"{slug}-comparison.tex": latex_table(group),
        f"{slug}-runs.csv": _runs_csv(group),
        f"{slug}-curves.csv": _curves_csv(group),
        f"{slug}-matrix.csv": _matrix_csv(group),
        f"{slug}-classes.csv": _classes_csv(group),
    }


def _text_rows(group: Group) -> Iterable[tuple[Row, list[Cell]]]:
    columns = [cells(group, column) for column in shown_columns(group)]
    for number, row in enumerate(group.rows):
        yield row, [column[number] for column in columns]


def _heading(column: Column) -> str:
    arrow = "↑" if column.better == "higher" else "↓"
    unit = f" ({column.unit})" if column.unit else ""
    return f"{column.heading}{unit} {arrow}"


def _caption(group: Group) -> str:
    mark = f" {group.mixed[0].upper()}{group.mixed[1:]}." if group.mixed else ""
    return f"{group.stream}: mean and 95 % interval over seeds (Student's t); best in bold.{mark}"


def markdown_table(group: Group) -> str:
    """Returns the comparison as a Markdown table."""
    headings = ["Method", "Seeds", *map(_heading, shown_columns(group))]
    lines = [headings, ["---"] + ["---:"] * (len(headings) - 1)]
    for row, row_cells in _text_rows(group):
        texts = [f"**{cell.text}**" if cell.is_best else cell.text for cell in row_cells]
        lines.append([_escape_markdown(row.label), str(len(row.seeds)), *texts])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "".join(f"\n- {_escape_markdown(note)}" for note in group.notes)
    return f"{_escape_markdown(_caption(group))}\n\n{body}\n{notes and notes + chr(10)}"


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


def latex_table(group: Group) -> str:
    """Returns the comparison as a LaTeX table for the booktabs package."""
    headings = ["Method", "Seeds", *map(_heading, shown_columns(group))]
    lines = [" & ".join(map(_escape_latex, headings)) + r" \\", r"\midrule"]
    for row, row_cells in _text_rows(group):
        texts = [_escape_latex(cell.text) for cell in row_cells]
        bold = [
            rf"\textbf{{{text}}}" if cell.is_best else text
            for text, cell in zip(texts, row_cells, strict=True)
        ]
        lines.append(" & ".join([_escape_latex(row.label), str(len(row.seeds)), *bold]) + r" \\")
    notes = [f"% {note}" for note in group.notes]
    head = [r"\begin{table}", r"\centering", rf"\caption{{{_escape_latex(_caption(group))}}}"]
    begin = [rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}", r"\toprule"]
    end = [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(notes + head + begin + lines + end) + "\n"


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
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


def _comparison_csv(group: Group) -> str:
    columns = shown_columns(group)
    header = ["stream", "protocol", "mixed_protocols", "method", "num_seeds", "seeds"]
    for column in columns:
        header += [f"{column.name}_mean", f"{column.name}_ci95"]
    rows = []
    for row in group.rows:
        seeds = " ".join(map(str, row.seeds))
        line: list[object] = [
            group.stream,
            row.protocol,
            group.mixed,
            row.label,
            len(row.seeds),
            seeds,
        ]
        for column in columns:
            interval = row.interval(column.name)
            line += [float(interval.mean), float(interval.half_width)]
        rows.append(line)
    return _csv(header, rows)


def _runs_csv(group: Group) -> str:
    names = [column.name for column in shown_columns(group)]
    rows = (
        [row.protocol, row.label, run.record.seed, *(run.values[name] for name in names)]
        for row in group.rows
        for run in row.runs
    )
    return _csv(["protocol", "method", "seed", *names], rows)


def _curves_csv(group: Group) -> str:
    header = ["protocol", "method", "num_seeds", "experience", "classes_seen"]
    names = {"seen": "accuracy_on_classes_seen", "forgetting": "forgetting_from_best"}
    for name in names.values():
        header += [f"{name}_mean", f"{name}_ci95"]
    rows = []
    for row in group.rows:
        curves = [row.interval(name) for name in names]
        for t, classes in enumerate(row.classes_seen):
            line: list[object] = [row.protocol, row.label, len(row.seeds), t, classes]
            for curve in curves:
                line += [float(curve.mean[t]), float(curve.half_width[t])]
            rows.append(line)
    return _csv(header, rows)


def _matrix_csv(group: Group) -> str:
    header = ["protocol", "method", "seed", "experience_trained", "target_experience", "accuracy"]
    rows = (
        [row.protocol, row.label, run.record.seed, int(t), int(i), run.matrix[t, i]]
        for row in group.rows
        for run in row.runs
        for t, i in np.argwhere(~np.isnan(run.matrix))
    )
    return _csv(header, rows)


def _classes_csv(group: Group) -> str:
    header = ["protocol", "method", "seed", "position", "class", "accuracy"]
    rows = (
        [row.protocol, row.label, run.record.seed, position, run.record.classes[position], accuracy]
        for row in group.rows
        for run in row.runs
        for position, accuracy in zip(run.classes.index, run.classes, strict=True)
    )
    return _csv(header, rows)
