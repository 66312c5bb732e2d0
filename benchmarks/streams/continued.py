"""Streams that go on: the experiences of a part after those of the stream so far.

A part whose classes are all known is one experience: more images of them, or a new domain. New
classes are cut into experiences by the part's increment, or come together; images of known classes
beside them come with the first. A part with domains of its own can bring one an experience.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from cl_adapters.benchmarks.data.images import natural_key
from cl_adapters.benchmarks.data.joining import JoinedSource, LearnedSource
from cl_adapters.benchmarks.streams.class_incremental import split_classes
from cl_adapters.benchmarks.streams.plans import Indices, StreamPlan, experience_domains
from cl_adapters.errors import InputError

__all__ = ["continued_plan", "learned_plan"]


class _Experience(NamedTuple):
    # Indices in the part's own images.
    name: str
    train: Indices
    test: Indices


def continued_plan(plan: StreamPlan, source: JoinedSource) -> StreamPlan:
    """Plans a stream that goes on: all of a plan, and what a part brings after it.

    Args:
        plan: Of the stream so far, over `source.before`.
        source: The images of both.

    Raises:
        InputError: If the increment is larger than the number of new classes, or a domain of the
            part has no images on one side.
    """
    before, part = source.before, source.part
    num_known = len(before.classes)
    order = (*plan.order, *range(num_known, len(source.classes)))
    position = np.argsort(order)
    labels = np.array(source.labels, np.int64)
    found = list(_by_domain(source) if source.by_domain else _by_class(source))
    for each in found:
        _check_images(each, source)
    brought = [
        tuple(sorted(position[labels[np.unique(part.train.targets[each.train])]].tolist()))
        for each in found
    ]
    names = [each.name for each in found]
    domains = plan.domains
    if domains:
        added = experience_domains([*(each.name for each in domains), *names])[len(domains) :]
        domains = (*domains, *added)
    entry = {
        "stream": part.name,
        "data": part.describe(),
        "experiences": [len(each) for each in brought],
        "names": names,
    }
    return replace(
        plan,
        order=order,
        classes=(*plan.classes, *source.classes[num_known:]),
        experiences=(*plan.experiences, *brought),
        train=(*plan.train, *(each.train + len(before.train) for each in found)),
        test=(*plan.test, *(each.test + len(before.test) for each in found)),
        domains=domains,
        scenario={**plan.scenario, "continued": [*_entries(plan), entry]},
    )


def _entries(plan: StreamPlan) -> list[object]:
    entries = plan.scenario.get("continued", [])
    return list(entries) if isinstance(entries, list) else []


def _by_class(source: JoinedSource) -> Iterator[_Experience]:
    part = source.part
    labels = np.array(source.labels)
    new = np.flatnonzero(labels >= len(source.before.classes))
    if source.increment is None or not len(new):
        groups = [tuple(range(len(labels)))]
    else:
        known = tuple(np.flatnonzero(labels < len(source.before.classes)).tolist())
        cuts = split_classes(len(new), source.increment)
        groups = [tuple(new[list(cut)].tolist()) for cut in cuts]
        groups[0] = (*known, *groups[0])
    for number, group in enumerate(groups, 1):
        train, test = (
            np.flatnonzero(np.isin(images.targets, group)) for images in (part.train, part.test)
        )
        name = part.name if len(groups) == 1 else f"{part.name} {number}"
        yield _Experience(name, train, test)


def _by_domain(source: JoinedSource) -> Iterator[_Experience]:
    train, test = source.part.train, source.part.test
    if train.domains is None or test.domains is None:
        raise InputError(
            f"images of {source.part.name!r} must have domains to bring one an experience, got none"
        )
    for name in sorted(set(train.domains.tolist()), key=natural_key):
        learned = np.flatnonzero(train.domains == name)
        brought = np.unique(train.targets[learned])
        tested = np.flatnonzero((test.domains == name) & np.isin(test.targets, brought))
        yield _Experience(name, learned, tested)


def _check_images(experience: _Experience, source: JoinedSource) -> None:
    for split, images in (("train", experience.train), ("test", experience.test)):
        if not len(images):
            raise InputError(
                f"experience {experience.name!r} of {source.part.name!r} must have at least one "
                f"{split} image of its classes, got 0"
            )


def learned_plan(source: LearnedSource) -> StreamPlan:
    """Plans the experiences that a run has learned whose images are no longer there.

    Test images that are there belong to the experience that was the first to bring their class.

    Args:
        source: What stands for them.
    """
    nothing, learned = np.array([], dtype=np.int64), source.learned
    num_experiences = len(learned.experiences)
    plan = StreamPlan(
        rule="learned",
        order=tuple(range(len(source.classes))),
        classes=source.classes,
        experiences=tuple(map(tuple, learned.experiences)),
        train=(nothing,) * num_experiences,
        test=(),
        domains=tuple(experience_domains(list(learned.domains))),
        num_absent=num_experiences,
        first_sample=learned.samples,
    )
    first = plan.experience_of_class[source.test.targets]
    tests = tuple(np.flatnonzero(first == each) for each in range(num_experiences))
    return replace(plan, test=tests)
