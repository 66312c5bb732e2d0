"""Streams of several data sets: one after the other, in turns, or coming back with other classes.

Each data set orders its classes by itself and cuts them into groups. A visit to it, one experience,
brings the next group: a return to a data set brings classes of it that were not there before. What
comes when is said by a rule (`sequential`: all groups of a data set, then the next one's;
`interleaved`: the first group of each, then the second of each, and so on) or by the names of the
data sets, a visit each: `objects,signs,objects`. Classes of groups that no visit brings are not
part of the stream.

The data set is the domain of an experience. So the true changes on record are those of the data
set, and a change to one that was seen is a return; more classes of the same one are no change.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Final

import numpy as np

from cl_adapters.benchmarks.data.datasets import DataSets
from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.streams.class_incremental import (
    class_order,
    plan_of_groups,
    split_classes,
)
from cl_adapters.benchmarks.streams.class_names import ORDER_RULES, named_order
from cl_adapters.benchmarks.streams.plans import StreamPlan, experience_domains
from cl_adapters.errors import InputError, listed, unknown_name

__all__ = ["Cut", "datasets_plan", "numbered"]

_RULES: Final = ("sequential", "interleaved")


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How a data set's classes are cut into groups.

    Attributes:
        increment: Classes of a group; None for all groups alike, as many as are asked for.
        num_experiences: Number of groups; None for as many as the order of the data sets asks for,
            or else for all that the increment makes.
        class_order: Order of its classes, see `class_names.named_order`; None for the stream's.
    """

    increment: int | None = None
    num_experiences: int | None = None
    class_order: str | None = None


def datasets_plan(
    source: DataSets,
    cuts: Sequence[Cut],
    *,
    order: str = "sequential",
    classes: str = "seeded",
    seed: int = 0,
) -> StreamPlan:
    """Plans a stream over several data sets.

    Args:
        source: The data sets.
        cuts: How each of them is cut.
        order: `sequential`, `interleaved`, or names of the data sets: `objects,signs,objects`.
        classes: Rule of the class order within each data set that has none of its own.
        seed: Seed of the run, for the rule `seeded`; a data set has the order that it has alone.

    Raises:
        InputError: If an order or a number does not fit a data set.
    """
    if classes not in ORDER_RULES:
        raise InputError(
            f"class order of several data sets must be one of {', '.join(ORDER_RULES)}, got "
            f"{classes!r}; `class_order` of a data set names its own classes"
        )
    names = [part.name for part in source.parts]
    visits = None if order in _RULES else _visits(order, names)
    asked = Counter(visits or [])
    orders = [_order(part, cut.class_order or classes, seed) for part, cut in _pairs(source, cuts)]
    groups = [
        _groups(part, cut, ordered, asked.get(place))
        for place, ((part, cut), ordered) in enumerate(
            zip(_pairs(source, cuts), orders, strict=True)
        )
    ]
    visits = visits or _by_rule(order, [len(each) for each in groups])
    brought = _brought(source, groups, visits)
    domains = experience_domains([names[place] for place in visits])
    own = {
        part.name: cut.class_order if cut.class_order in ORDER_RULES else list(ordered)
        for (part, cut), ordered in zip(_pairs(source, cuts), orders, strict=True)
        if cut.class_order is not None
    }
    return replace(
        plan_of_groups(source, tuple(chain(*brought)), _in_a_row(brought), classes),
        domains=tuple(domains),
        scenario={
            "scenario": "datasets",
            "datasets": [each.name for each in domains],
            **({"class_orders": own} if own else {}),
        },
    )


def numbered(plan: StreamPlan) -> list[str]:
    """Returns the name of each experience: its data set, and of several visits to it which.

    Example:
        With the data sets `a`, `b`, `a`: `["a 1", "b", "a 2"]`.
    """
    names = [each.name for each in plan.domains]
    return [
        name if names.count(name) == 1 else f"{name} {names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]


def _pairs(source: DataSets, cuts: Sequence[Cut]) -> list[tuple[ImageSource, Cut]]:
    return list(zip(source.parts, cuts, strict=True))


def _visits(order: str, names: Sequence[str]) -> list[int]:
    """Returns which data set each experience visits."""
    given = [each.strip() for each in order.split(",") if each.strip()]
    for name in given:
        if name not in names:
            kind = "data set in dataset_order" if len(given) > 1 else "data set or dataset_order"
            raise unknown_name(kind, name, names if len(given) > 1 else [*_RULES, *names])
    left = [name for name in names if name not in given]
    if left:
        raise InputError(
            f"dataset_order must name each data set at least once, {listed(left)} "
            f"{'is' if len(left) == 1 else 'are'} missing"
        )
    return [names.index(name) for name in given]


def _by_rule(rule: str, counts: Sequence[int]) -> list[int]:
    if rule == "sequential":
        return [place for place, count in enumerate(counts) for _ in range(count)]
    return [place for turn in range(max(counts)) for place, n in enumerate(counts) if turn < n]


def _order(part: ImageSource, rule: str, seed: int) -> tuple[int, ...]:
    try:
        return class_order(named_order(rule, part.classes), len(part.classes), seed)
    except InputError as error:
        raise InputError(f"data set {part.name!r}: {error}") from error


def _groups(
    part: ImageSource, cut: Cut, ordered: Sequence[int], visits: int | None
) -> list[list[int]]:
    """Returns the numbers of the classes that each visit brings."""
    whole, most = f"data set {part.name!r}", len(part.classes)
    if visits is not None and cut.num_experiences not in (None, visits):
        raise InputError(
            f"num_experiences of {whole} must be the {visits} that dataset_order gives it, got "
            f"{cut.num_experiences}"
        )
    count, increment = visits or cut.num_experiences, cut.increment
    if increment is not None and not 1 <= increment <= most:
        raise InputError(
            f"increment of {whole} must be from 1 to its number of classes, {most}, got {increment}"
        )
    if increment is None:
        every = [part.tolist() for part in np.array_split(ordered, min(count or 1, most))]
    else:
        every = [
            [ordered[position] for position in each] for each in split_classes(most, increment)
        ]
    if count is not None and count > len(every):
        size = "of one class" if increment is None else f"of {increment}"
        raise InputError(
            f"experiences of {whole} must be at most the {len(every)} that its {most} classes make "
            f"{size}, got {count}"
        )
    return every[:count]


def _brought(
    source: DataSets, groups: Sequence[Sequence[Sequence[int]]], visits: Sequence[int]
) -> list[list[int]]:
    """Returns the numbers in the source of the classes that each experience brings."""
    coming = [iter(each) for each in groups]
    return [[source.starts[place] + label for label in next(coming[place])] for place in visits]


def _in_a_row(brought: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    stops = list(accumulate(len(each) for each in brought))
    return tuple(
        tuple(range(stop - len(each), stop)) for stop, each in zip(stops, brought, strict=True)
    )
