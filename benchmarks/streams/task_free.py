"""Task-free streams: images come without a word of where experiences end; a detector announces it.

Any planned stream becomes task-free: the training images of its experiences come one experience
after the other, in random order within each, and a finder of boundaries
(`cl_adapters.shift.boundaries`) watches their features. What lies between two announced boundaries
is a segment, and a segment is what a strategy trains on as an experience. The features are those of
the frozen backbone, which nothing trains, so the boundaries do not depend on the strategy and are
found in one pass before it starts; each of them follows from the images before its announcement.

Evaluation knows the truth. The test images of a class in an experience of the hidden stream belong
to the first segment that holds a training image of that class from that experience. After the last
segment they are all there: exactly those that a run with the true boundaries ends with. A segment
that is the first to hold nothing has none.

A true change is where an experience begins whose domain is another than that of the one before, or
which brings other classes: an experience of a shift stream that goes on as before is none.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from cl_adapters.benchmarks.data.images import ImageSource, LabelledImages
from cl_adapters.benchmarks.streams.plans import (
    ExperienceDomain,
    HiddenTruth,
    Indices,
    StreamPlan,
    experience_domains,
)
from cl_adapters.benchmarks.streams.watch import Watch
from cl_adapters.errors import InputError
from cl_adapters.shift.boundaries import Boundary

__all__ = ["Flow", "flow_images", "flow_of", "task_free_plan", "true_changes"]

_FLOW: Final = 10  # keeps the chance of this order apart from that of others


@dataclass(frozen=True, kw_only=True, eq=False)
class Flow:
    """The training images of a stream, one after the other.

    Attributes:
        indices: Index in `source.train` of each image, (N,).
        origins: The experience that each belongs to, (N,), which nobody is told.
    """

    indices: Indices
    origins: Indices


def flow_of(plan: StreamPlan, seed: int = 0) -> Flow:
    """Returns the training images of a stream in the order in which they come.

    Args:
        plan: The stream.
        seed: Seed of the order within each experience, at least 0.
    """
    parts = [
        np.random.default_rng([seed, _FLOW, experience]).permutation(rows)
        for experience, rows in enumerate(plan.train)
    ]
    lengths = [len(part) for part in parts]
    return Flow(indices=np.concatenate(parts), origins=np.repeat(np.arange(len(parts)), lengths))


def flow_images(source: ImageSource, plan: StreamPlan, flow: Flow) -> LabelledImages:
    """Returns the images of a flow, each with the pixels that its experience has it in."""
    return plan.pick(source.train, flow.indices, flow.origins)


def true_changes(plan: StreamPlan) -> list[int]:
    """Returns after how many images of the flow each true change comes.

    Example:
        >>> from cl_adapters.benchmarks.data.sources import open_source
        >>> from cl_adapters.benchmarks.streams.class_incremental import make_plan
        >>> true_changes(make_plan(open_source("digits"), increment=5, order="natural"))
        [676]
    """
    starts = np.cumsum([len(part) for part in plan.train]).tolist()
    return [
        start
        for experience, start in enumerate(starts[:-1], start=1)
        if set(plan.experiences[experience]) != set(plan.experiences[experience - 1])
        or (plan.domains and plan.domains[experience].changed)
    ]


def task_free_plan(
    source: ImageSource,
    plan: StreamPlan,
    boundaries: Sequence[Boundary],
    *,
    seed: int = 0,
    watch: Watch | None = None,
) -> StreamPlan:
    """Returns a stream whose experiences are the announced segments of another.

    With a boundary at the start of each experience the plan is that of the stream itself.

    Args:
        source: Where the images come from.
        plan: The stream, whose experiences are hidden.
        boundaries: What was announced over its flow, in order.
        seed: Seed of the flow.
        watch: How they were found, for the fingerprint.

    Raises:
        InputError: If the boundaries do not ascend within the stream.
    """
    flow = flow_of(plan, seed)
    starts = [0, *(boundary.start for boundary in boundaries)]
    _check_ascending(starts, len(flow.indices))
    segments = np.searchsorted(starts, np.arange(len(flow.indices)), side="right") - 1
    members = [_in_order(flow, np.flatnonzero(segments == each)) for each in range(len(starts))]
    homes = _homes(plan, flow, plan.positions(source.train)[flow.indices], segments)
    test, test_origins = _test_parts(plan, plan.positions(source.test), homes, len(starts))
    train_origins = tuple(flow.origins[each] for each in members)
    truth = _truth(plan, [None, *boundaries], train_origins)
    return replace(
        plan,
        experiences=_experiences(plan, homes, len(starts)),
        train=tuple(flow.indices[each] for each in members),
        test=test,
        domains=_domains(plan, train_origins),
        scenario={**plan.scenario, "task_free": watch.describe() if watch else {}},
        hidden=HiddenTruth(plan=plan, train=train_origins, test=test_origins, truth=truth),
    )


def _check_ascending(starts: Sequence[int], images: int) -> None:
    for low, high in pairwise([*starts, images]):
        if low >= high:
            raise InputError(
                f"boundaries must ascend within the {images} images of the stream, got "
                f"{high} after {low}"
            )


def _in_order(flow: Flow, members: Indices) -> Indices:
    # As told plans have them, so that true boundaries give the told experiences image by image.
    return members[np.lexsort((flow.indices[members], flow.origins[members]))]


def _homes(plan: StreamPlan, flow: Flow, positions: Indices, segments: Indices) -> Indices:
    """Returns the segment that tests a class of an experience, (T, C)."""
    shape = (len(plan.experiences), len(plan.order))
    homes = np.full(shape, segments[-1] + 1)
    np.minimum.at(homes, (flow.origins, positions), segments)
    # Classes that an experience tests and has no training image of: where it begins.
    homes = np.where(homes > segments[-1], homes.min(axis=1, keepdims=True), homes)
    return np.asarray(homes, dtype=np.int64)


def _experiences(
    plan: StreamPlan, homes: Indices, num_segments: int
) -> tuple[tuple[int, ...], ...]:
    brought: list[set[int]] = [set() for _ in range(num_segments)]
    for experience, positions in enumerate(plan.experiences):
        for position in positions:
            brought[homes[experience, position]].add(position)
    return tuple(tuple(sorted(each)) for each in brought)


def _test_parts(
    plan: StreamPlan, positions: Indices, homes: Indices, num_segments: int
) -> tuple[tuple[Indices, ...], tuple[Indices, ...]]:
    """Returns the test images of each segment and the experiences that they come from."""
    indices = np.concatenate(plan.test)
    origins = np.repeat(np.arange(len(plan.test)), [len(part) for part in plan.test])
    segments = homes[origins, positions[indices]]
    chosen = [segments == segment for segment in range(num_segments)]
    return tuple(indices[each] for each in chosen), tuple(origins[each] for each in chosen)


def _domains(plan: StreamPlan, origins: Sequence[Indices]) -> tuple[ExperienceDomain, ...]:
    """Returns the domain of each segment: the one that most of its images are in."""
    if not plan.domains:
        return ()
    inside = [[plan.domains[each] for each in part.tolist()] for part in origins]
    names = [Counter(domain.name for domain in part).most_common(1)[0][0] for part in inside]
    domains = []
    for truth, part in zip(experience_domains(names), inside, strict=True):
        same = [domain for domain in part if domain.name == truth.name]
        share = min(1.0, sum(domain.share for domain in same) / len(part))
        domains.append(replace(truth, severity=same[0].severity, share=share))
    return tuple(domains)


def _truth(
    plan: StreamPlan, boundaries: Sequence[Boundary | None], origins: Sequence[Indices]
) -> tuple[dict[str, object], ...]:
    changes = true_changes(plan)
    truth: list[dict[str, object]] = []
    start = 0
    for boundary, part in zip(boundaries, origins, strict=True):
        announced = boundary.announced if boundary else None
        before = [change for change in changes if change < (announced or 0)]
        counts = sorted(Counter(part.tolist()).items())
        truth.append(
            {
                "start": start,
                "images": len(part),
                "announced": announced,
                "score": boundary.score if boundary else None,
                "threshold": boundary.threshold if boundary else None,
                "delay": announced - before[-1] if announced and before else None,
                "changes": [each for each in changes if start <= each < start + len(part)],
                "origins": [list(pair) for pair in counts],
            }
        )
        start += len(part)
    return tuple(truth)
