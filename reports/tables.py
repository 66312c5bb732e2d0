"""The comparison as rows of text, and its CSV, Markdown and LaTeX forms."""

import math

import numpy as np

from cl_adapters.reports.definitions import COLUMNS, Column
from cl_adapters.reports.groups import Group
from cl_adapters.reports.markup import Cell, Sheet, csv_text, heading, interval_cells

__all__ = ["cells", "latex_table", "markdown_table", "shown_columns", "table_files"]


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
    return interval_cells(column, intervals, [not row.is_upper_bound for row in group.rows])


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


def _caption(group: Group) -> str:
    mark = f" {group.mixed[0].upper()}{group.mixed[1:]}." if group.mixed else ""
    return f"{group.stream}: mean and 95 % interval over seeds (Student's t); best in bold.{mark}"


def _sheet(group: Group) -> Sheet:
    shown = shown_columns(group)
    columns = [cells(group, column) for column in shown]
    return Sheet(
        caption=_caption(group),
        headings=["Method", "Seeds", *map(heading, shown)],
        rows=[
            (row.label, len(row.seeds), [column[number] for column in columns])
            for number, row in enumerate(group.rows)
        ],
        notes=group.notes,
    )


def markdown_table(group: Group) -> str:
    """Returns the comparison as a Markdown table."""
    return _sheet(group).markdown()


def latex_table(group: Group) -> str:
    """Returns the comparison as a LaTeX table for the booktabs package."""
    return _sheet(group).latex()


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
    return csv_text(header, rows)


def _runs_csv(group: Group) -> str:
    names = [column.name for column in shown_columns(group)]
    rows = (
        [row.protocol, row.label, run.record.seed, *(run.values[name] for name in names)]
        for row in group.rows
        for run in row.runs
    )
    return csv_text(["protocol", "method", "seed", *names], rows)


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
    return csv_text(header, rows)


def _matrix_csv(group: Group) -> str:
    header = ["protocol", "method", "seed", "experience_trained", "target_experience", "accuracy"]
    rows = (
        [row.protocol, row.label, run.record.seed, int(t), int(i), run.matrix[t, i]]
        for row in group.rows
        for run in row.runs
        for t, i in np.argwhere(~np.isnan(run.matrix))
    )
    return csv_text(header, rows)


def _classes_csv(group: Group) -> str:
    header = ["protocol", "method", "seed", "position", "class", "accuracy"]
    rows = (
        [row.protocol, row.label, run.record.seed, position, run.record.classes[position], accuracy]
        for row in group.rows
        for run in row.runs
        for position, accuracy in zip(run.classes.index, run.classes, strict=True)
    )
    return csv_text(header, rows)
