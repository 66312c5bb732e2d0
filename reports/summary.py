"""One honest sentence or two on each comparison, made from its numbers."""

import math
from collections.abc import Sequence
from typing import Final

from cl_adapters.reports.definitions import format_number
from cl_adapters.reports.groups import Group, Row

__all__ = ["sentences"]

_LEADS: Final = ("leads on A_last (micro)", "A_last (micro)")
_FORGETS: Final = ("forgets least (from best)", "forgetting from best")


def sentences(group: Group) -> list[str]:
    """Returns who leads on `a_last_micro` and who forgets least, by how much and how surely."""
    rivals = [row for row in group.rows if not row.is_upper_bound]
    bounds = [row for row in group.rows if row.is_upper_bound]
    said = []
    if len(rivals) > 1:
        said.append(_leader(rivals, "a_last_micro", _LEADS, -1))
        if not all(math.isnan(_mean(row, "forgetting_from_best")) for row in rivals):
            said.append(_leader(rivals, "forgetting_from_best", _FORGETS, 1))
    elif rivals:
        said.append(_alone(rivals[0]))
    for row in bounds:
        value = _shown(row, "a_last_micro")
        said.append(f"{row.label}, the upper bound that sees all data at once, reaches {value}.")
    return said


def _mean(row: Row, name: str) -> float:
    return float(row.interval(name).mean)


def _shown(row: Row, name: str) -> str:
    interval = row.interval(name)
    half = float(interval.half_width)
    text = format_number(float(interval.mean), 2)
    return f"{text} %" if math.isnan(half) else f"{text} ± {format_number(half, 2)} %"


def _alone(row: Row) -> str:
    last, average = _shown(row, "a_last_micro"), _shown(row, "a_avg_micro")
    plural = "seed" if len(row.seeds) == 1 else "seeds"
    return (
        f"{row.label} reaches A_last (micro) {last} and A_avg (micro) {average} "
        f"with {len(row.seeds)} {plural}; there is nothing to compare it with."
    )


def _leader(rows: Sequence[Row], name: str, words: tuple[str, str], sign: int) -> str:
    claim, subject = words
    known = [row for row in rows if not math.isnan(_mean(row, name))]
    ranked = sorted(known, key=lambda row: (sign * _mean(row, name), row.label))
    best = _mean(ranked[0], name)
    level = [row for row in ranked if _mean(row, name) == best]
    if len(level) > 1:
        labels = " and ".join([", ".join(row.label for row in level[:-1]), level[-1].label])
        return f"{labels} are level on {subject}, {format_number(best, 2)} %."
    first = f"{ranked[0].label} {claim} with {_shown(ranked[0], name)}"
    if len(ranked) < 2:
        return f"{first}; no other method has a value."
    points = f"{format_number(abs(best - _mean(ranked[1], name)), 2)} points"
    second = f"{ranked[1].label} ({_shown(ranked[1], name)})"
    return f"{first}, {points} from the next, {second}; {_certainty(ranked[0], ranked[1], name)}."


def _certainty(first: Row, second: Row, name: str) -> str:
    ones, twos = first.interval(name), second.interval(name)
    reach = float(ones.half_width) + float(twos.half_width)
    if math.isnan(reach):
        return "with a single seed there is no interval, so the order may be chance"
    if abs(float(ones.mean) - float(twos.mean)) <= reach:
        return "their 95 % intervals overlap, so the order is not settled"
    return "their 95 % intervals do not overlap"
