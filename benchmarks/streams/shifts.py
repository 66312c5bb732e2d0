"""Shift streams: all classes in every experience, and a domain that changes at known points.

The train images of any source are dealt out to the experiences; what changes is their pixels. A
stream begins with `clean`, unchanged images. Its experiences fall into stays, one more than there
are changes and as equal in length as can be, so that most experiences bring no change and count
false alarms. A change leads to a domain that is new or, at the recurring ones, back to one that was
seen. Where changes and recurrences stand is the same for all seeds; which domains these are, and
which images go where, follows the seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import numpy as np

from cl_adapters.benchmarks.data.images import ImageSource, LabelledImages
from cl_adapters.benchmarks.streams.changes import KINDS, DomainMix, KindOfChange, PixelChange
from cl_adapters.benchmarks.streams.class_incremental import class_order, order_rule
from cl_adapters.benchmarks.streams.plans import (
    ExperienceDomain,
    Indices,
    StreamPlan,
    experience_domains,
)
from cl_adapters.errors import InputError, unknown_name

__all__ = ["CLEAN", "Schedule", "deal", "shift_plan", "stratified_sample"]

CLEAN: Final = "clean"
Transition = Literal["abrupt", "gradual"]
_DOMAINS, _DEAL, _SAMPLE = 2, 3, 4  # keep the chance of one purpose apart from that of another


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Which domain each experience has.

    Args:
        num_experiences: Number of experiences, at least 1.
        changes: Number of experiences whose domain is another than that of the one before.
        recurring: How many of these return to a domain seen before, from 0 to `changes` - 1. They
            are spread evenly, the last change being one.
        shifts: Kinds of change that make the new domains; the seed picks and orders them.
        transition: `abrupt`, or `gradual`: the share of images from the new domain grows in equal
            steps over the experiences of its stay, the others still being in the domain before.
        severity: How far pixels are changed, in [0, 1]; with 0 every domain is `clean`.

    Raises:
        InputError: If a value is out of its range, or `shifts` has fewer kinds than new domains.

    Example:
        >>> plan = Schedule(num_experiences=6, changes=2, recurring=1, shifts=("blur",))
        >>> [domain.name for domain in plan.domains(seed=0)]
        ['clean', 'clean', 'blur', 'blur', 'clean', 'clean']
    """

    num_experiences: int = 14
    changes: int = 6
    recurring: int = 2
    shifts: Sequence[str] = tuple(KINDS)
    transition: Transition = "abrupt"
    severity: float = 1.0

    def __post_init__(self) -> None:
        _check_range("num_experiences", self.num_experiences, "1", None)
        limit = self.num_experiences - 1
        _check_range("changes", self.changes, "num_experiences - 1", limit)
        _check_range("recurring", self.recurring, "changes - 1", max(self.changes - 1, 0))
        for place, kind in enumerate(self.shifts):
            KindOfChange(kind, self.severity)  # checks both
            if kind in self.shifts[:place]:
                raise InputError(f"shifts must hold each kind once, got {kind!r} twice")
        if self.transition not in get_args(Transition):
            raise unknown_name("transition", self.transition, get_args(Transition))
        if len(self.shifts) < self.changes - self.recurring:
            raise InputError(
                f"shifts must name a kind for each new domain, changes - recurring = "
                f"{self.changes - self.recurring}, got {len(self.shifts)}"
            )

    def domains(self, seed: int) -> tuple[ExperienceDomain, ...]:
        """Returns the domain of each experience."""
        generator = np.random.default_rng([seed, _DOMAINS])
        stays = [CLEAN] * (self.changes + 1) if self.severity == 0 else self._stays(generator)
        lengths = [len(part) for part in np.array_split(range(self.num_experiences), len(stays))]
        truths = experience_domains(np.repeat(stays, lengths).tolist())
        before = np.repeat([CLEAN, *stays[:-1]], lengths).tolist()
        shares = [(step + 1) / length for length in lengths for step in range(length)]
        return tuple(
            self._complete(truth, old, share, seed)
            for truth, old, share in zip(truths, before, shares, strict=True)
        )

    def describe(self, domains: Sequence[ExperienceDomain]) -> dict[str, object]:
        """Returns what of it and of the domains it gave belongs into a run's fingerprint."""
        return {
            "scenario": "shift",
            "shifts": list(self.shifts),
            "transition": self.transition,
            "severity": self.severity,
            "changed": [domain.changed for domain in domains],
            "seen_before": [domain.seen_before for domain in domains],
        }

    def _stays(self, generator: np.random.Generator) -> list[str]:
        new = iter(generator.permutation(list(self.shifts)).tolist())
        returns = {
            -(-(place + 1) * self.changes // self.recurring) for place in range(self.recurring)
        }
        stays = [CLEAN]
        for change in range(1, self.changes + 1):
            seen = [name for name in dict.fromkeys(stays) if name != stays[-1]]
            stays.append(str(generator.choice(seen)) if change in returns else next(new))
        return stays

    def _complete(
        self, domain: ExperienceDomain, before: str, share: float, seed: int
    ) -> ExperienceDomain:
        change = self._change(domain.name, seed)
        severity = 0.0 if change is None else self.severity
        if self.transition == "abrupt" or share == 1 or before == domain.name:
            return replace(domain, change=change, severity=severity)
        mix = DomainMix(self._change(before, seed), change, share, seed)
        return replace(domain, change=mix, severity=severity, share=share)

    def _change(self, name: str, seed: int) -> PixelChange | None:
        return None if name == CLEAN else KindOfChange(name, self.severity, seed)


def _check_range(name: str, value: int, rule: str, most: int | None) -> None:
    if most is None and value < 1:
        raise InputError(f"{name} must be at least {rule}, got {value}")
    if most is not None and not 0 <= value <= most:
        raise InputError(f"{name} must be from 0 to {rule}, {most}, got {value}")


def shift_plan(
    source: ImageSource,
    schedule: Schedule | None = None,
    *,
    classes: str | Sequence[int] = "seeded",
    test_images: int | None = None,
    seed: int = 0,
) -> StreamPlan:
    """Plans a stream of changing domains over a source.

    Args:
        source: Where the images come from.
        schedule: Which domain each experience has; None takes the defaults.
        classes: Rule of the class order, see `class_order`.
        test_images: How many test images each experience is evaluated on, at least one a class; a
            sample with equal shares of the classes, the same for every experience and every seed.
            None takes them all.
        seed: Seed of the run: of domains, deal, changes and of the rule `seeded`.

    Raises:
        InputError: If there are more experiences than train images of a class, or a number or the
            class order is out of range.
    """
    schedule = schedule or Schedule()
    ordered = class_order(classes, len(source.classes), seed)
    if seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}")
    domains = schedule.domains(seed)
    count = schedule.num_experiences
    test = stratified_sample(source.test, test_images)
    everything = tuple(range(len(source.classes)))
    return StreamPlan(
        rule=order_rule(classes),
        order=ordered,
        classes=tuple(source.classes[label] for label in ordered),
        experiences=(everything,) * count,
        train=deal(source.train, count, seed),
        test=(test,) * count,
        domains=domains,
        scenario={**schedule.describe(domains), "test_images": len(test)},
    )


def deal(images: LabelledImages, num_parts: int, seed: int = 0) -> tuple[Indices, ...]:
    """Deals images out like cards, class after class, each class shuffled.

    The parts are disjoint and hold every image; their sizes, and the numbers of images of a class
    in them, differ by at most one.

    Args:
        images: The images to deal.
        num_parts: Number of parts, at most the number of images of the smallest class.
        seed: Seed of the shuffling.

    Raises:
        InputError: If a class has fewer images than there are parts.
    """
    counts = np.bincount(images.targets, minlength=len(images.classes))
    smallest = int(counts.argmin())
    if num_parts > counts[smallest]:
        raise InputError(
            f"num_experiences must be at most the number of train images of every class, "
            f"{counts[smallest]} of {images.classes[smallest]!r}, got {num_parts}"
        )
    cards = _by_class(images, np.random.default_rng([seed, _DEAL]))
    return tuple(np.sort(cards[part::num_parts]) for part in range(num_parts))


def stratified_sample(images: LabelledImages, most: int | None) -> Indices:
    """Returns at most `most` images in which each class keeps its share, the same at each call.

    Raises:
        InputError: If there is not one image a class.
    """
    if most is None or most >= len(images):
        return np.arange(len(images))
    num_classes = len(images.classes)
    if most < num_classes:
        raise InputError(
            f"test_images must be at least the number of classes, {num_classes}, got {most}"
        )
    cards = _by_class(images, np.random.default_rng(_SAMPLE))
    targets = images.targets[cards]
    starts = np.searchsorted(targets, np.arange(num_classes))
    # One image of each class; of the others every n-th, which keeps the classes' shares.
    others = np.delete(cards, starts)
    chosen = np.linspace(0, len(others), most - num_classes, endpoint=False).astype(np.int64)
    return np.sort(np.concatenate([cards[starts], others[chosen]]))


def _by_class(images: LabelledImages, generator: np.random.Generator) -> Indices:
    shuffled = generator.permutation(len(images))
    return shuffled[np.argsort(images.targets[shuffled], kind="stable")]
