"""Class-incremental streams: an order of the classes, cut into experiences.

Inside a class-incremental stream a class is its position in the order, 0 to C - 1, so that the
classes of experience t are the next ones after those of t - 1. Nothing here touches a global random
state.
"""

from collections.abc import Sequence
from itertools import pairwise
from operator import index

import numpy as np

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.streams.class_names import ORDER_RULES
from cl_adapters.benchmarks.streams.plans import StreamPlan
from cl_adapters.errors import InputError, unknown_name

__all__ = ["class_order", "make_plan", "order_rule", "plan_of_groups", "split_classes"]


def class_order(rule: str | Sequence[int], num_classes: int, seed: int = 0) -> tuple[int, ...]:
    """Returns the classes in the order in which a stream brings them.

    Args:
        rule: `natural`; `seeded`, by the run's seed; `numpy1993`, the field's fixed order (NumPy's
            legacy generator with seed 1993), or `numpy1995`, SD-LoRA's; or the order itself, as
            numbers or `3,0,2,1`.
        num_classes: Number of classes C.
        seed: Seed of the rule `seeded`, at least 0.

    Raises:
        InputError: If the rule is unknown or the given order is no permutation of the classes.

    Example:
        >>> class_order("numpy1993", 100)[:5]
        (68, 56, 78, 8, 23)
    """
    if not isinstance(rule, str) or rule not in ORDER_RULES:
        return _explicit_order(rule, num_classes)
    if rule == "seeded":
        if seed < 0:
            raise InputError(f"seed must be at least 0, got {seed}")
        return tuple(np.random.default_rng(seed).permutation(num_classes).tolist())
    if rule.startswith("numpy"):  # the published orders come from the legacy generator
        legacy = np.random.RandomState(int(rule.removeprefix("numpy")))
        return tuple(legacy.permutation(num_classes).tolist())
    return tuple(range(num_classes))


def _explicit_order(rule: str | Sequence[int], num_classes: int) -> tuple[int, ...]:
    parts = rule.split(",") if isinstance(rule, str) else rule
    try:
        order = [int(part) if isinstance(part, str) else index(part) for part in parts]
    except (ValueError, TypeError) as error:
        if isinstance(rule, str) and "," not in rule:
            raise unknown_name("class order", rule, ORDER_RULES) from error
        raise InputError(f"class order must be a list of class numbers, got {rule!r}") from error
    for place, label in enumerate(order):
        if not 0 <= label < num_classes:
            raise InputError(f"class order must hold classes 0 to {num_classes - 1}, got {label}")
        if label in order[:place]:
            raise InputError(f"class order must hold each class once, got {label} twice")
    for label in sorted(set(range(num_classes)) - set(order)):
        raise InputError(f"class order must hold each class once, {label} is missing")
    return tuple(order)


def split_classes(
    num_classes: int, increment: int, first: int | None = None
) -> tuple[tuple[int, ...], ...]:
    """Cuts the positions 0 to C - 1 into experiences: B0-IncN, or Bm-IncN with `first` = m.

    What does not fill an experience makes a smaller last one.

    Args:
        num_classes: Number of classes C.
        increment: Classes an experience, N, from 1 to C.
        first: Classes of the first experience, m, from 1 to C; None or 0 means N.

    Raises:
        InputError: If a number is out of its range.

    Example:
        >>> split_classes(10, 4)
        ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9))
    """
    start = increment if first is None or first == 0 else first
    for name, value in (("increment", increment), ("first", start)):
        if not 1 <= value <= num_classes:
            raise InputError(
                f"{name} must be from 1 to the number of classes, {num_classes}, got {value}"
            )
    cuts = [0, *range(start, num_classes, increment), num_classes]
    return tuple(tuple(range(low, high)) for low, high in pairwise(cuts))


def make_plan(
    source: ImageSource,
    *,
    increment: int,
    first: int | None = None,
    order: str | Sequence[int] = "seeded",
    seed: int = 0,
) -> StreamPlan:
    """Plans a class-incremental stream over a source.

    Args:
        source: Where the images come from.
        increment: Classes an experience.
        first: Classes of the first experience; None or 0 means `increment`.
        order: Rule of the class order, see `class_order`.
        seed: Seed of the run, for the rule `seeded`.

    Raises:
        InputError: If the numbers or the order do not fit the source's classes.
    """
    ordered = class_order(order, len(source.classes), seed)
    experiences = split_classes(len(source.classes), increment, first)
    return plan_of_groups(source, ordered, experiences, order_rule(order))


def plan_of_groups(
    source: ImageSource,
    ordered: tuple[int, ...],
    experiences: tuple[tuple[int, ...], ...],
    rule: str = "explicit",
) -> StreamPlan:
    """Plans a stream whose experiences bring given classes.

    Args:
        source: Where the images come from.
        ordered: Index in the source of the class at each position.
        experiences: Positions of the classes that each experience brings.
        rule: Name of the class order's rule.
    """
    labels = [[ordered[position] for position in each] for each in experiences]
    train, test = (
        tuple(np.flatnonzero(np.isin(images.targets, each)) for each in labels)
        for images in (source.train, source.test)
    )
    return StreamPlan(
        rule=rule,
        order=ordered,
        classes=tuple(source.classes[label] for label in ordered),
        experiences=experiences,
        train=train,
        test=test,
    )


def order_rule(order: str | Sequence[int]) -> str:
    """Returns the name of a class order's rule, or `explicit`."""
    return order if isinstance(order, str) and order in ORDER_RULES else "explicit"
