"""Domain-incremental streams: one domain an experience, the same classes in each.

The domains are a column `domain` of the data. An experience brings the classes that its domain has
train images of; test images of other classes are left out of it.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from cl_adapters.benchmarks.images import ImageSource, LabelledImages, natural_key
from cl_adapters.benchmarks.plans import Indices, StreamPlan, experience_domains
from cl_adapters.benchmarks.streams import class_order, order_rule
from cl_adapters.errors import InputError, unknown_name

__all__ = ["domain_order", "domain_plan"]

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
    train_domains, test_domains = (_domains(source, side) for side in (source.train, source.test))
    names = domain_order(order, [*train_domains.tolist(), *test_domains.tolist()], seed)
    ordered = class_order(classes, len(source.classes), seed)
    train = [np.flatnonzero(train_domains == name) for name in names]
    labels = [np.unique(source.train.targets[rows]) for rows in train]
    test = [
        np.flatnonzero((test_domains == name) & np.isin(source.test.targets, known))
        for name, known in zip(names, labels, strict=True)
    ]
    _check_images(names, train, test)
    _check_classes(source, train, test)
    position = np.argsort(ordered)
    return StreamPlan(
        rule=order_rule(classes),
        order=ordered,
        classes=tuple(source.classes[label] for label in ordered),
        experiences=tuple(tuple(sorted(position[each].tolist())) for each in labels),
        train=tuple(train),
        test=tuple(test),
        domains=tuple(experience_domains(list(names))),
        scenario={
            "scenario": "domain",
            "domain_order": order if order in _RULES else list(names),
            "domains_sha256": _checksum(source, train_domains, test_domains),
        },
    )


def _domains(source: ImageSource, images: LabelledImages) -> npt.NDArray[np.str_]:
    if images.domains is None:
        raise InputError(
            f"data of a domain-incremental stream must have a text column 'domain', "
            f"{source.name!r} has none"
        )
    for index in np.flatnonzero(images.domains == ""):
        raise InputError(f"domain of image {images.name(int(index))} must not be empty, got null")
    return images.domains


def _check_images(names: Sequence[str], train: list[Indices], test: list[Indices]) -> None:
    for split, parts in (("train", train), ("test", test)):
        for name, rows in zip(names, parts, strict=True):
            if not len(rows):
                raise InputError(
                    f"domain {name!r} must have at least one {split} image of its classes, got 0"
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
