"""One honest sentence or two on each comparison, made from its numbers."""

import math
from collections.abc import Sequence
from typing import Final

from cl_adapters.reports.definitions import format_number
from cl_adapters.reports.groups import Group, Row
from cl_adapters.reports.paired import difference, paired_rows
from cl_adapters.reports.pareto import frontier

__all__ = ["sentences"]

_LEADS: Final = ("leads on A_last (micro)", "A_last (micro)")
_FORGETS: Final = ("forgets least (from best)", "forgetting from best")


def sentences(group: Group, baseline: Row | None = None) -> list[str]:
    """Returns who leads on `a_last_micro`, who forgets least, and what is worth its cost.

    Args:
        group: The methods.
        baseline: What the leader is held against, seed by seed.
    """
    rivals = [row for row in group.rows if not row.is_upper_bound]
    bounds = [row for row in group.rows if row.is_upper_bound]
    said = []
    if len(rivals) > 1:
        said.append(_leader(rivals, "a_last_micro", _LEADS, -1))
        if not all(math.isnan(_mean(row, "forgetting_from_best")) for row in rivals):
            said.append(_leader(rivals, "forgetting_from_best", _FORGETS, 1))
            said += _little_to_forget(rivals)
        said += [*_against(group, rivals[0], baseline), *_worth(rivals)]
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


def _little_to_forget(rows: Sequence[Row]) -> list[str]:
    """Returns a word on the method that forgets least, if it has learned far less than others."""
    known = [row for row in rows if not math.isnan(_mean(row, "forgetting_from_best"))]
    least = min(known, key=lambda row: (_mean(row, "forgetting_from_best"), row.label))
    reached, best = _mean(least, "a_last_micro"), max(_mean(row, "a_last_micro") for row in rows)
    if reached >= best / 2:
        return []
    end, top = format_number(reached, 1), format_number(best, 1)
    return [f"{least.label} has little to forget: it ends at {end} %, the best at {top} %."]


def _against(group: Group, leader: Row, baseline: Row | None) -> list[str]:
    if baseline is None or baseline is leader:
        return []
    pairs = [row for row in paired_rows(group, baseline) if row.label == leader.label]
    if not pairs or len(pairs[0].runs) < 2:
        return []
    interval = difference(pairs[0], baseline, "a_last_micro")
    mean, half = float(interval.mean), float(interval.half_width)
    size = f"{format_number(abs(mean), 2)} ± {format_number(half, 2)} points"
    where = "above" if mean > 0 else "below"
    sure = "" if abs(mean) > half else ", an interval that holds 0"
    text = f"{leader.label} lies {size} {where} {baseline.label} on A_last (micro)"
    return [f"Seed by seed, {text}, over {interval.num_seeds} pairs{sure}."]


def _worth(rivals: Sequence[Row]) -> list[str]:
    costs = [_mean(row, "train_seconds") for row in rivals]
    scores = [_mean(row, "a_last_micro") for row in rivals]
    if any(map(math.isnan, costs)):
        return []
    named = [
        f"{rivals[i].label} ({format_number(scores[i], 1)} % in {format_number(costs[i], 0)} s)"
        for i in frontier(costs, scores)
    ]
    if len(named) == 1:
        return [f"{named[0]} is both the most accurate and the quickest to train."]
    listed = f"{', '.join(named[:-1])} and {named[-1]}"
    return [f"No rival is both more accurate and quicker to train than {listed}."]


def _certainty(first: Row, second: Row, name: str) -> str:
    ones, twos = first.interval(name), second.interval(name)
    reach = float(ones.half_width) + float(twos.half_width)
    if math.isnan(reach):
        return "with a single seed there is no interval, so the order may be chance"
    if abs(float(ones.mean) - float(twos.mean)) <= reach:
        return "their 95 % intervals overlap, so the order is not settled"
    return "their 95 % intervals do not overlap"
