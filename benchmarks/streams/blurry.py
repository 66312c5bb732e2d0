"""Blurry streams: class-incremental, but some training images of each class come at another time.

Every class has an experience of its own. A share of its training images leaks out of it, spread
evenly and at random over all other experiences, earlier and later ones; so a class may be met
before its own experience, and is met again after it. Test images stay with the class's own
experience, and a record lists a class there only: accuracies are over the same test images as those
of the class-incremental stream with the same class order.

Reference: J. Bang et al., "Rainbow Memory: Continual Learning with a Memory of Diverse Samples",
CVPR 2021, arXiv:2103.17230, whose blurry streams let M per cent of a task come from other tasks'
classes. Not implemented from i-Blurry (H. Koh et al., "Online Continual Learning on Class
Incremental Blurry Task Configuration with Anytime Inference", ICLR 2022): classes that never leak.
"""

from dataclasses import replace
from typing import Final

import numpy as np

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.streams.plans import Indices, StreamPlan
from cl_adapters.errors import InputError

__all__ = ["blurry_plan", "leak"]

_LEAK: Final = 5  # keeps the chance of this deal apart from that of others


def leak(
    labels: Indices, class_to_task: Indices, num_experiences: int, *, blur: float, seed: int = 0
) -> tuple[Indices, ...]:
    """Deals images out to experiences, some of each class to others than the class's own.

    Of n images of a class, floor(blur · n) leak; the numbers that the other experiences get of them
    differ by at most one. At least one image of each class stays at home.

    Args:
        labels: Class of each image, (N,).
        class_to_task: Own experience of each class, (C,).
        num_experiences: Number of experiences T, at least 2.
        blur: Share of each class that leaks, in [0, 1).
        seed: Seed of the choice of images and experiences.

    Returns:
        Indices of each experience's images, ascending; a partition.

    Example:
        >>> [len(part) for part in leak(np.zeros(5, int), np.array([1]), 3, blur=0.4)]
        [1, 3, 1]
    """
    generator = np.random.default_rng([seed, _LEAK])
    place = class_to_task[labels]
    for label, owner in enumerate(class_to_task.tolist()):
        members = generator.permutation(np.flatnonzero(labels == label))
        others = generator.permutation(np.delete(np.arange(num_experiences), owner))
        # A product such as 0.29 · 100 lies just below the whole number that it stands for.
        leaving = members[: min(int(blur * len(members) + 1e-9), len(members) - 1)]
        place[leaving] = np.resize(others, len(leaving))
    return tuple(np.flatnonzero(place == experience) for experience in range(num_experiences))


def blurry_plan(source: ImageSource, plan: StreamPlan, *, blur: float, seed: int = 0) -> StreamPlan:
    """Returns a class-incremental plan with blurry boundaries.

    Args:
        source: Where the images come from.
        plan: A class-incremental plan over the source.
        blur: Share of each class's training images that leak into other experiences, in [0, 1).
        seed: Seed of the run.

    Raises:
        InputError: If `blur` is out of range, or so small that a class would not leak.
    """
    count = len(plan.experiences)
    _check(source, blur, count, seed)
    train = plan.train
    if blur > 0:
        class_to_task = plan.experience_of_class[np.argsort(plan.order)]
        train = leak(source.train.targets, class_to_task, count, blur=blur, seed=seed)
    scenario = {"scenario": "blurry", "blur": blur, "test_images": "with the class's experience"}
    return replace(plan, train=train, scenario=scenario)


def _check(source: ImageSource, blur: float, num_experiences: int, seed: int) -> None:
    if seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}")
    if not 0 <= blur < 1:
        raise InputError(f"blur must lie in [0, 1), got {blur}")
    if blur > 0 and num_experiences < 2:
        raise InputError(f"blur must be 0 in a stream of one experience, got {blur}")
    counts = np.bincount(source.train.targets)
    smallest = int(counts.argmin())
    if blur > 0 and int(blur * counts[smallest] + 1e-9) == 0:
        raise InputError(
            f"blur must let an image of every class leak, at least 1 / {counts[smallest]} for "
            f"class {source.classes[smallest]!r}, got {blur}"
        )
