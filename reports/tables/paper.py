"""The table for a paper: the columns that fit one of its own, or those that are asked for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cl_adapters.reports.definitions import COLUMNS, Column
from cl_adapters.reports.groups import Group
from cl_adapters.reports.tables.comparison import comparison_table
from cl_adapters.reports.tables.markup import definition, heading
from cl_adapters.reports.tables.scores import ScoreTable

__all__ = ["HEADINGS", "paper_table"]

# As short as a paper's column wants them; the caption names what is in percent.
HEADINGS: Final = {
    "a_last_micro": "A_last",
    "a_last_task_mean": "A_last, tasks",
    "a_avg_micro": "A_avg",
    "a_avg_task_mean": "A_avg, tasks",
    "forgetting_from_best": "Forgetting",
    "forgetting_from_best_before": "Forg., before",
    "forgetting_from_first": "Forg., first",
    "bwt": "BWT",
    "fwt_without_baseline": "FWT",
    "ece": "ECE",
    "nll": "NLL",
    "added_parameters": "Parameters",
    "kept_mebibytes": "Kept",
    "train_seconds": "Training",
    "evaluation_seconds": "Evaluation",
    "passes_per_image": "Passes",
    "peak_mebibytes": "Memory",
}


def paper_table(group: Group, names: Sequence[str]) -> ScoreTable:
    """Returns the comparison in some of its columns, under short headings.

    Args:
        group: The methods.
        names: Of the columns, in the order in which they are shown.
    """
    known = {column.name: column for column in COLUMNS}
    columns = [known[name] for name in names]
    seeds = {group.seeds_of(row) for row in group.rows}
    return replace(
        comparison_table(group),
        columns=columns,
        stem="paper",
        caption=_caption(columns, seeds),
        notes=[*group.notes, *map(_explained, columns)],
        title=_title,
        tells_seeds=len(seeds) > 1,
    )


def _title(column: Column) -> str:
    unit = "" if column.unit == "%" else column.unit
    return heading(replace(column, heading=HEADINGS[column.name], unit=unit))


def _explained(column: Column) -> str:
    return f"{HEADINGS[column.name]} is {column.name}: {definition(column)}"


def _caption(columns: Sequence[Column], seeds: set[str]) -> str:
    number = next(iter(seeds)) if len(seeds) == 1 else ""
    over = f"over {number} seeds" if number else "over seeds"
    spread = f"mean {over} ± half the 95 % interval (Student's t)"
    percents = [HEADINGS[column.name] for column in columns if column.unit == "%"]
    unit = "; all in percent" if len(percents) == len(columns) else ""
    if percents and not unit:
        unit = f"; {', '.join(percents)} in percent"
    return f"{'one seed' if number == '1' else spread}{unit}; best in bold."
