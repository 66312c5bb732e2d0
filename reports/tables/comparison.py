"""The comparison, and all that its figures are drawn from as CSV."""

import math

import numpy as np

from cl_adapters.reports.definitions import COLUMNS, Column
from cl_adapters.reports.groups import Group
from cl_adapters.reports.tables.markup import csv_text
from cl_adapters.reports.tables.scores import ScoreTable

__all__ = ["comparison_table", "shown_columns", "table_files"]


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


def comparison_table(group: Group) -> ScoreTable:
    """Returns the final table of a group."""
    return ScoreTable(
        group=group,
        rows=group.rows,
        columns=shown_columns(group),
        interval=lambda row, column: row.interval(column.name),
        stem="comparison",
        caption="mean and 95 % interval over seeds (Student's t); best in bold.",
        notes=group.notes,
    )


def table_files(group: Group) -> dict[str, str]:
    """Returns the text of every table of a group by file name."""
    slug = group.slug
    return comparison_table(group).files() | {
        f"{slug}-runs.csv": _runs_csv(group),
        f"{slug}-curves.csv": _curves_csv(group),
        f"{slug}-matrix.csv": _matrix_csv(group),
        f"{slug}-classes.csv": _classes_csv(group),
    }


def _runs_csv(group: Group) -> str:
    names = [column.name for column in shown_columns(group)]
    rows = (
        [row.protocol, row.label, run.record.seed, *(run.values[name] for name in names)]
        for row in group.rows
        for run in row.runs
    )
    return csv_text(["protocol", "method", "seed", *names], rows)


def _curves_csv(group: Group) -> str:
    header = ["protocol", "method", "num_seeds", "experience", "experience_name", "classes_seen"]
    drawn = {"seen": "accuracy_on_classes_seen", "forgetting": "forgetting_from_best"}
    for name in drawn.values():
        header += [f"{name}_mean", f"{name}_ci95"]
    rows = []
    for row in group.rows:
        curves = [row.interval(name) for name in drawn]
        names = row.experience_names or [""] * len(row.classes_seen)
        for t, classes in enumerate(row.classes_seen):
            line: list[object] = [row.protocol, row.label, len(row.seeds), t, names[t], classes]
            for curve in curves:
                line += [float(curve.mean[t]), float(curve.half_width[t])]
            rows.append(line)
    return csv_text(header, rows)


def _matrix_csv(group: Group) -> str:
    header = ["protocol", "method", "seed", "experience_trained", "target_experience", "accuracy"]
    header += ["trained_name", "target_name"]
    rows = (
        [row.protocol, row.label, run.record.seed, t, i, run.matrix[t, i], names[t], names[i]]
        for row in group.rows
        for run in row.runs
        for names in [run.experience_names]
        for t, i in np.argwhere(~np.isnan(run.matrix)).tolist()
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
