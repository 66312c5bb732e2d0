"""Streams with repetition: each experience brings new classes, and some of the old ones return.

New classes are shared out evenly over the experiences in class order, at least one in each. After
its first experience a class returns in each later one with a given probability, independently of
all else. A class's training images are dealt out evenly to its occurrences, each image once; its
test images belong to its first experience, and a record lists it there only, so that forgetting is
that of the classes which an experience was the first to bring.

Reference: H. Hemati et al., "Class-Incremental Learning with Repetition", CoLLAs 2023: as in its
sampling-based generator, with one probability of return for all classes. Differs from it: first
occurrences are spread evenly instead of drawn, and no image is seen twice.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.streams.class_incremental import class_order, order_rule
from cl_adapters.benchmarks.streams.plans import Indices, StreamPlan
from cl_adapters.errors import InputError

__all__ = ["deal_to_occurrences", "occurrences", "repetition_plan"]

_RETURNS, _DEAL = 8, 9  # keep the chance of one purpose apart from that of another
_TESTED = "with the class's first experience"
Flags = npt.NDArray[np.bool_]


def occurrences(firsts: Indices, num_experiences: int, *, repeat: float, seed: int = 0) -> Flags:
    """Returns in which experiences each class occurs, (C, T).

    Args:
        firsts: First experience of each class, (C,).
        num_experiences: Number of experiences T.
        repeat: Probability of a class to return in an experience after its first, in [0, 1].
        seed: Seed of the returns.

    Example:
        >>> occurrences(np.array([0, 1]), 3, repeat=1).astype(int).tolist()
        [[1, 1, 1], [0, 1, 1]]
    """
    generator = np.random.default_rng([seed, _RETURNS])
    returns: Flags = generator.random((len(firsts), num_experiences)) < repeat
    since = np.arange(num_experiences) - firsts[:, None]
    occurs: Flags = (since == 0) | ((since > 0) & returns)
    return occurs


def deal_to_occurrences(labels: Indices, occurs: Flags, *, seed: int = 0) -> tuple[Indices, ...]:
    """Deals the images of each class out to the experiences in which it occurs.

    The numbers of images that a class has in them differ by at most one, larger ones first.

    Args:
        labels: Class of each image, (N,); a class has at least as many as occurrences.
        occurs: In which experiences each class occurs, (C, T).
        seed: Seed of the choice of images.

    Returns:
        Indices of each experience's images, ascending; a partition.

    Example:
        >>> parts = deal_to_occurrences(np.zeros(3, int), np.array([[True, False, True]]))
        >>> [len(part) for part in parts]
        [2, 0, 1]
    """
    generator = np.random.default_rng([seed, _DEAL])
    place = np.zeros_like(labels)
    for label, row in enumerate(occurs):
        members = generator.permutation(np.flatnonzero(labels == label))
        when = np.flatnonzero(row)
        for experience, part in zip(when, np.array_split(members, len(when)), strict=True):
            place[part] = experience
    return tuple(np.flatnonzero(place == experience) for experience in range(occurs.shape[1]))


def repetition_plan(
    source: ImageSource,
    *,
    num_experiences: int,
    repeat: float,
    order: str | Sequence[int] = "seeded",
    seed: int = 0,
) -> StreamPlan:
    """Plans a stream over a source in which classes return.

    Args:
        source: Where the images come from.
        num_experiences: Number of experiences, from 1 to the number of classes.
        repeat: Probability of a class to return in an experience after its first, in [0, 1].
        order: Rule of the class order, see `class_order`.
        seed: Seed of the run: of returns, deal and of the rule `seeded`.

    Raises:
        InputError: If a number is out of range, or a class has fewer images than occurrences.
    """
    num_classes = len(source.classes)
    _check_numbers(num_classes, num_experiences, repeat, seed)
    ordered = class_order(order, num_classes, seed)
    new = np.array_split(np.arange(num_classes), num_experiences)
    firsts = np.repeat(np.arange(num_experiences), [len(part) for part in new])
    firsts = firsts[np.argsort(ordered)]  # by class of the source
    occurs = occurrences(firsts, num_experiences, repeat=repeat, seed=seed)
    _check_images(source, occurs)
    tested = firsts[source.test.targets]
    return StreamPlan(
        rule=order_rule(order),
        order=ordered,
        classes=tuple(source.classes[label] for label in ordered),
        experiences=tuple(tuple(part.tolist()) for part in new),
        train=deal_to_occurrences(source.train.targets, occurs, seed=seed),
        test=tuple(np.flatnonzero(tested == each) for each in range(num_experiences)),
        scenario={"scenario": "repetition", "repeat": repeat, "test_images": _TESTED},
    )


def _check_numbers(num_classes: int, num_experiences: int, repeat: float, seed: int) -> None:
    if not 1 <= num_experiences <= num_classes:
        raise InputError(
            f"num_experiences must be from 1 to the number of classes, {num_classes}, got "
            f"{num_experiences}"
        )
    if not 0 <= repeat <= 1:
        raise InputError(f"repeat must lie in [0, 1], got {repeat}")
    if seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}")


def _check_images(source: ImageSource, occurs: Flags) -> None:
    counts = np.bincount(source.train.targets)
    needed = occurs.sum(axis=1)
    for label in np.flatnonzero(counts < needed):
        raise InputError(
            f"class {source.classes[label]!r} must have a train image for each of its "
            f"{needed[label]} experiences, got {counts[label]}"
        )
