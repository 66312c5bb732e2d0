"""Differences to a baseline and ranks as tables."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from cl_adapters.reports.definitions import COLUMNS, Column
from cl_adapters.reports.groups import Group, Row
from cl_adapters.reports.paired import difference, mean_ranks, paired_rows
from cl_adapters.reports.seeds import Interval, mean_interval
from cl_adapters.reports.tables.comparison import shown_columns
from cl_adapters.reports.tables.scores import ScoreTable

__all__ = [
    "DIFFERENCES_TEXT",
    "LEAST_SEEDS",
    "RANKS_TEXT",
    "difference_table",
    "rank_table",
    "too_few_seeds",
]

DIFFERENCES_TEXT: Final = (
    "Mean over the seeds that both have of (method \u2212 baseline), with the 95 % interval of "
    "that mean (Student's t over the pairs). Seeds of one number share the order of the classes, "
    "which goes out of the difference. With an asterisk: the interval leaves out 0, for better or "
    "worse as the column's arrow says. Each interval stands for itself: of twenty that mean "
    "nothing, one leaves out 0 by chance."
)
RANKS_TEXT: Final = (
    "Mean over the seeds that all methods have of the place among them, with its 95 % interval; "
    "1 is the best, level methods share the mean of their places, upper bounds take no part."
)
# With one there is no interval, and a difference or a rank looks as sure as the mean of ten.
LEAST_SEEDS: Final = 2
_WHY: Final = (
    f"That takes {LEAST_SEEDS} seeds that methods share: from one alone nobody can tell a better "
    "method from a lucky order of the classes. Five make a fair comparison: run with --seeds 5."
)
_DIFFERENCES: Final = (
    "a_last_micro",
    "a_last_task_mean",
    "a_avg_micro",
    "forgetting_from_best",
    "bwt",
    "ece",
    "nll",
    "train_seconds",
    "evaluation_seconds",
)
_RANKED: Final = (
    "a_last_micro",
    "a_avg_micro",
    "forgetting_from_best",
    "ece",
    "train_seconds",
    "evaluation_seconds",
    "added_parameters",
)


def _columns(group: Group, names: Sequence[str]) -> list[Column]:
    shown = {column.name for column in shown_columns(group)}
    return [column for column in COLUMNS if column.name in names and column.name in shown]


def _leaves_out_zero(intervals: Sequence[Interval]) -> list[str]:
    return ["*" if abs(float(each.mean)) > float(each.half_width) else "" for each in intervals]


def _unmarked(_: Column, intervals: Sequence[Interval], __: Sequence[bool]) -> list[bool]:
    return [False] * len(intervals)  # bold is the best of a column, and here is none


def difference_table(group: Group, baseline: Row | None) -> ScoreTable | None:
    """Returns how far each method lies from a baseline, seed by seed.

    A method with less than `LEAST_SEEDS` pairs is left out; None if all are.

    Args:
        group: The methods.
        baseline: What they are held against.
    """
    rows = _paired_enough(group, baseline)
    if baseline is None or not rows:
        return None
    return ScoreTable(
        group=group,
        rows=rows,
        columns=_columns(group, _DIFFERENCES),
        interval=lambda row, column: difference(row, baseline, column.name),
        stem="differences",
        caption=f"difference to {baseline.label}.",
        notes=[DIFFERENCES_TEXT],
        marks=_unmarked,
        signs=_leaves_out_zero,
        is_signed=True,
        suffix="_difference",
    )


def rank_table(group: Group) -> ScoreTable | None:
    """Returns the mean rank of each method; None if they share less than `LEAST_SEEDS` seeds."""
    rivals, shared = _rivals(group)
    if len(rivals) < 2 or len(shared) < LEAST_SEEDS:
        return None
    columns = [_as_rank(column) for column in _columns(group, _RANKED)]
    is_higher = {column.name: column.better == "higher" for column in COLUMNS}
    ranks = {
        column.name: mean_ranks(rivals, column.name, is_higher_better=is_higher[column.name])
        for column in columns
    }
    place = {row.label: number for number, row in enumerate(rivals)}

    def interval(row: Row, column: Column) -> Interval:
        mine = ranks[column.name][:, place[row.label]]
        return mean_interval(mine) if mine.size else _unknown()

    return ScoreTable(
        group=group,
        rows=[_sharing(row, shared) for row in rivals],
        columns=columns,
        interval=interval,
        stem="ranks",
        caption="mean rank over the seeds that all methods have; best in bold.",
        notes=[RANKS_TEXT],
        suffix="_rank",
    )


def too_few_seeds(group: Group, baseline: Row | None) -> str:
    """Returns which of both tables is not shown, or leaves out whom, and why; empty if all is.

    Args:
        group: The methods.
        baseline: What they are held against.
    """
    rivals, shared = _rivals(group)
    kept = {row.label for row in _paired_enough(group, baseline)}
    has_ranks = len(rivals) < 2 or len(shared) >= LEAST_SEEDS
    lost = [
        row.label
        for row in group.rows
        if baseline is not None
        and row.protocol == baseline.protocol
        and row.label not in {baseline.label, *kept}
    ]
    missing = [
        *(["differences seed by seed"] if lost and not kept else []),
        *([] if has_ranks else ["ranks"]),
    ]
    said = f"Not shown: {' and '.join(missing)}. " if missing else ""
    if lost and kept:
        said += f"Left out of the differences: {', '.join(lost)}. "
    return f"{said}{_WHY}" if said else ""


def _rivals(group: Group) -> tuple[list[Row], set[int]]:
    # The methods that are ranked, and the seeds that all of them have.
    rivals = [row for row in group.rows if not row.is_upper_bound]
    shared = set.intersection(*(set(row.seeds) for row in rivals)) if rivals else set()
    return rivals, shared


def _paired_enough(group: Group, baseline: Row | None) -> list[Row]:
    rows = [] if baseline is None else paired_rows(group, baseline)
    return [row for row in rows if len(row.runs) >= LEAST_SEEDS]


def _as_rank(column: Column) -> Column:
    return replace(
        column, unit="", better="lower", digits=2, formula=f"mean rank in: {column.formula}"
    )


def _sharing(row: Row, seeds: set[int]) -> Row:
    return replace(row, runs=tuple(run for run in row.runs if run.record.seed in seeds))


def _unknown() -> Interval:
    return mean_interval(np.array([np.nan]))
