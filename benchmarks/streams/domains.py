"""Streams over the domains of the data: one an experience, or groups of classes within each.

The domains are a column `domain` of the data. An experience brings the classes that its domain has
train images of; test images of other classes are left out of it.

Domain-incremental streams bring all classes of a domain at once. Streams of classes and domains
bring every pair of a group of classes and a domain, one an experience: domain after domain, and
within each the groups in class order. Classes are new in the first domain and return in the others.
The true changes on record are those of the domain, where a round of groups ends: a detector that
fires at new classes within a domain gives a false alarm.
"""

import hashlib
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from cl_adapters.benchmarks.data.images import ImageSource, LabelledImages, natural_key
from cl_adapters.benchmarks.streams.class_incremental import class_order, order_rule
from cl_adapters.benchmarks.streams.plans import Indices, StreamPlan, experience_domains
from cl_adapters.errors import InputError, unknown_name

__all__ = ["class_domain_plan", "domain_order", "domain_plan", "pair_up"]

_RULES: Final = ("natural", "seeded")
_ORDER: Final = 1  # keeps the chance of this order apart from that of the class order


def domain_order(rule: str | Sequence[str], names: Sequence[str], seed: int = 0) -> tuple[str, ...]:
    """Returns the domains in the order in which a stream brings them.

    Args:
        rule: `natural`, sorted by name with `2` before `10`; `seeded`, by the run's seed; or some
            or all of the names, as a list or as `photo,sketch`.
        names: Names of the domains that there are.
        seed: Seed of the rule `seeded`, at least 0.

    Raises:
        InputError: If the rule or a name in the list is unknown, or a name stands twice.

    Example:
        >>> domain_order("photo, art", ["art", "cartoon", "photo"])
        ('photo', 'art')
    """
    known = sorted(set(names), key=natural_key)
    if rule == "natural":
        return tuple(known)
    if rule == "seeded":
        if seed < 0:
            raise InputError(f"seed must be at least 0, got {seed}")
        places = np.random.default_rng([seed, _ORDER]).permutation(len(known))
        return tuple(known[place] for place in places)
    order = [part.strip() for part in rule.split(",")] if isinstance(rule, str) else list(rule)
    for place, name in enumerate(order):
        if name not in known:
            kind = "domain" if len(order) > 1 else "domain or domain order"
            raise unknown_name(kind, name, known if len(order) > 1 else [*_RULES, *known])
        if name in order[:place]:
            raise InputError(f"domain order must hold each domain once, got {name!r} twice")
    if not order:
        raise InputError("domain order must hold at least one domain, got none")
    return tuple(order)


def domain_plan(
    source: ImageSource,
    *,
    order: str | Sequence[str] = "natural",
    classes: str | Sequence[int] = "seeded",
    seed: int = 0,
) -> StreamPlan:
    """Plans a stream of one domain an experience.

    Args:
        source: Where the images come from; they need domains.
        order: Order of the domains, see `domain_order`.
        classes: Rule of the class order, see `class_order`.
        seed: Seed of the run, for the rules `seeded`.

    Raises:
        InputError: If the images have no domains, an order does not fit, a domain has no images on
            one side, or a class has train or test images in none of the domains.
    """
    everything = range(len(source.classes))
    return _plan(source, "domain", [everything], order=order, classes=classes, seed=seed)


def class_domain_plan(
    source: ImageSource,
    groups: Sequence[Sequence[int]],
    *,
    order: str | Sequence[str] = "natural",
    classes: str | Sequence[int] = "seeded",
    seed: int = 0,
) -> StreamPlan:
    """Plans a stream of one group of classes in one domain an experience.

    Args:
        source: Where the images come from; they need domains.
        groups: Positions in the class order of each group, see `split_classes`.
        order: Order of the domains, see `domain_order`.
        classes: Rule of the class order, see `class_order`.
        seed: Seed of the run, for the rules `seeded`.

    Raises:
        InputError: If the images have no domains, an order does not fit, a group has no images in a
            domain on one side, or a class has train or test images in none of the domains.
    """
    return _plan(source, "class_domain", groups, order=order, classes=classes, seed=seed)


def pair_up(
    positions: Indices,
    domains: npt.NDArray[np.str_],
    groups: Sequence[Sequence[int]],
    names: Sequence[str],
) -> list[Indices]:
    """Returns the indices, ascending, of the images of each pair: for each domain, each group.

    Args:
        positions: Class of each image by position in the class order, (N,).
        domains: Domain of each image, (N,).
        groups: Positions of each group of classes.
        names: The domains, in the order of the stream.

    Example:
        >>> domains = np.array(["a", "b", "a"])
        >>> [part.tolist() for part in pair_up(np.array([0, 0, 1]), domains, [[0], [1]], ["a"])]
        [[0], [2]]
    """
    return [
        np.flatnonzero((domains == name) & np.isin(positions, list(group)))
        for name in names
        for group in groups
    ]


def _plan(
    source: ImageSource,
    scenario: Literal["domain", "class_domain"],
    groups: Sequence[Sequence[int]],
    *,
    order: str | Sequence[str],
    classes: str | Sequence[int],
    seed: int,
) -> StreamPlan:
    domains = _domains(source, source.train), _domains(source, source.test)
    names = domain_order(order, np.concatenate(domains).tolist(), seed)
    ordered = class_order(classes, len(source.classes), seed)
    position = np.argsort(ordered)
    train = pair_up(position[source.train.targets], domains[0], groups, names)
    test = pair_up(position[source.test.targets], domains[1], groups, names)
    labels = [np.unique(source.train.targets[rows]) for rows in train]
    test = _of_trained_classes(source.test, test, labels)
    starts = [source.classes[ordered[group[0]]] for group in groups]
    _check_images(names, starts if scenario == "class_domain" else [None], train, test)
    _check_classes(source, train, test)
    return StreamPlan(
        rule=order_rule(classes),
        order=ordered,
        classes=tuple(source.classes[label] for label in ordered),
        experiences=tuple(tuple(sorted(position[each].tolist())) for each in labels),
        train=tuple(train),
        test=tuple(test),
        domains=tuple(experience_domains([name for name in names for _ in groups])),
        scenario={"scenario": scenario, **_describe(source, order, names, domains)},
    )


def _describe(
    source: ImageSource,
    order: str | Sequence[str],
    names: Sequence[str],
    domains: Sequence[npt.NDArray[np.str_]],
) -> dict[str, object]:
    return {
        "domain_order": order if order in _RULES else list(names),
        "domains_sha256": _checksum(source, *domains),
    }


def _of_trained_classes(
    images: LabelledImages, parts: Sequence[Indices], labels: Sequence[Indices]
) -> list[Indices]:
    return [
        rows[np.isin(images.targets[rows], known)]
        for rows, known in zip(parts, labels, strict=True)
    ]


def _domains(source: ImageSource, images: LabelledImages) -> npt.NDArray[np.str_]:
    if images.domains is None:
        raise InputError(
            f"data of a domain-incremental stream must have a text column 'domain', "
            f"{source.name!r} has none"
        )
    for index in np.flatnonzero(images.domains == ""):
        raise InputError(f"domain of image {images.name(int(index))} must not be empty, got null")
    return images.domains


def _check_images(
    names: Sequence[str],
    starts: Sequence[str | None],
    train: list[Indices],
    test: list[Indices],
) -> None:
    pairs = [(name, start) for name in names for start in starts]
    for split, parts in (("train", train), ("test", test)):
        for (name, start), rows in zip(pairs, parts, strict=True):
            if not len(rows):
                whose = "its classes" if start is None else f"the group that class {start!r} begins"
                raise InputError(
                    f"domain {name!r} must have at least one {split} image of {whose}, got 0"
                )


def _check_classes(source: ImageSource, train: list[Indices], test: list[Indices]) -> None:
    for split, images, parts in (("train", source.train, train), ("test", source.test, test)):
        present = np.unique(images.targets[np.concatenate(parts)])
        for label in sorted(set(range(len(source.classes))) - set(present.tolist())):
            raise InputError(
                f"class {source.classes[label]!r} must have {split} images in a domain of the "
                f"stream that has train images of it, got none"
            )


def _checksum(source: ImageSource, *domains: npt.NDArray[np.str_]) -> str:
    # Which image is of which domain; independent of the order of the images, as their own checksum.
    sides = zip(("train", "test"), (source.train, source.test), domains, strict=True)
    digests = [
        hashlib.sha256(f"{split}:{domain}:".encode() + image).digest()
        for split, images, names in sides
        for domain, image in zip(names.tolist(), images.digests, strict=True)
    ]
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()
