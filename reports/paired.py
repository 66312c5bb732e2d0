"""Methods against a baseline seed by seed, and their ranks.

Runs of one seed share the order of the classes, so the difference of two methods is taken seed by
seed: what a lucky order adds to both goes out of it. A seed that one of two lacks takes no part.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cl_adapters.errors import InputError, unknown_name
from cl_adapters.reports.groups import Group, Row
from cl_adapters.reports.seeds import Interval, mean_interval

__all__ = ["check_baseline", "difference", "find_baseline", "mean_ranks", "paired_rows"]

# Roles of what methods are held against unless the user says otherwise.
_USUAL: Final = ("baseline", "lower_bound", "upper_bound")


def find_baseline(group: Group, name: str | None) -> Row | None:
    """Returns the row that a baseline's name means in a group; None if it holds none.

    Args:
        group: The methods.
        name: A label, or a strategy that one row alone has. None means the method whose
            record says that it is a baseline, a lower bound or an upper bound, or else the best
            method, whichever is there first.

    Raises:
        InputError: If several rows have that strategy and none that label.
    """
    if len(group.rows) < 2:
        return None
    if name is None:
        return _usual(group.rows)
    labelled = [row for row in group.rows if row.label == name]
    named = labelled or [row for row in group.rows if row.strategy == name]
    if len(named) > 1:
        labels = ", ".join(repr(row.label) for row in named)
        raise InputError(f"baseline must name one method, {name!r} fits {labels}")
    return named[0] if named else None


def _usual(rows: Sequence[Row]) -> Row:
    for role in _USUAL:
        # With options that tell it from another of its kind a method is one among others.
        found = [row for row in rows if row.role == role and row.label == row.strategy]
        if found:
            return found[0]
    return rows[0]


def check_baseline(groups: Sequence[Group], name: str | None) -> None:
    """Checks that some group holds the baseline.

    Raises:
        InputError: If none does.
    """
    if name is None or not groups:
        return
    known = {row.label for group in groups for row in group.rows}
    strategies = {row.strategy for group in groups for row in group.rows}
    if name not in known | strategies:
        raise unknown_name("baseline", name, known)


def paired_rows(group: Group, baseline: Row) -> list[Row]:
    """Returns the other rows of the baseline's protocol, each with the runs that have a partner."""
    seeds = set(baseline.seeds)
    pairs = (
        replace(row, runs=tuple(run for run in row.runs if run.record.seed in seeds))
        for row in group.rows
        if row.label != baseline.label and row.protocol == baseline.protocol
    )
    return [row for row in pairs if row.runs]


def difference(row: Row, baseline: Row, name: str) -> Interval:
    """Returns mean and interval of a value's difference, method minus baseline, over their seeds.

    Args:
        row: A method whose seeds the baseline all has, as `paired_rows` returns it.
        baseline: What it is held against.
        name: Name of the value.
    """
    partner = {run.record.seed: run.values[name] for run in baseline.runs}
    return mean_interval(
        np.array([run.values[name] - partner[run.record.seed] for run in row.runs])
    )


def mean_ranks(rows: Sequence[Row], name: str, *, is_higher_better: bool) -> NDArray[np.float64]:
    """Returns the rank of each method at each seed that all of them have; 1 is the best.

    Level methods share the mean of their places. A seed at which a value is not defined is left
    out.

    Shape:
        (seeds, methods)
    """
    shared = sorted(set.intersection(*(set(row.seeds) for row in rows)))
    values = np.array(
        [[run.values[name] for run in row.runs if run.record.seed in shared] for row in rows]
    ).T.reshape(len(shared), len(rows))
    values = values[~np.isnan(values).any(axis=1)]
    costs = -values if is_higher_better else values
    before = (costs[:, None, :] < costs[:, :, None]).sum(axis=2)
    level = (costs[:, None, :] == costs[:, :, None]).sum(axis=2)
    return np.asarray(before + (level + 1) / 2, np.float64)
