"""Long-tailed streams: class-incremental, with ever fewer training images from class to class.

The class at rank k of C keeps n_max · imbalance^(-k / (C - 1)) training images, rounded down: the
exponential profile of Y. Cui et al., "Class-Balanced Loss Based on Effective Number of Samples",
CVPR 2019, and K. Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin
Loss", NeurIPS 2019. Ranks follow the class order (`ordered`) or chance (`shuffled`), as in X. Liu
et al., "Long-Tailed Class Incremental Learning", ECCV 2022. Test images are untouched.
"""

from dataclasses import replace
from typing import Final, Literal, get_args

import numpy as np

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.streams.plans import Indices, StreamPlan
from cl_adapters.errors import InputError, unknown_name

__all__ = ["Tail", "long_tailed_plan", "profile", "thin_out"]

Tail = Literal["ordered", "shuffled"]
_RANKS, _THIN = 6, 7  # keep the chance of one purpose apart from that of another
_ROUNDING: Final = 1e-9


def profile(head_images: int, num_classes: int, imbalance: float) -> Indices:
    """Returns how many images the class of each rank keeps, (C,).

    Args:
        head_images: Images of the largest class, n_max.
        num_classes: Number of classes C.
        imbalance: Ratio of the largest to the smallest class, at least 1.

    Example:
        >>> profile(100, 3, 100).tolist()
        [100, 10, 1]
    """
    exponents = -np.arange(num_classes) / max(num_classes - 1, 1)
    # What is a whole number must not fall below it by rounding.
    return np.floor(head_images * float(imbalance) ** exponents + _ROUNDING).astype(np.int64)


def thin_out(labels: Indices, counts: Indices, *, seed: int = 0) -> Indices:
    """Returns the indices, ascending, of a random choice of so many images of each class.

    Args:
        labels: Class of each image, (N,).
        counts: How many images to keep of each class, (C,).
        seed: Seed of the choice.

    Example:
        >>> thin_out(np.array([0, 0, 1, 1]), np.array([2, 0])).tolist()
        [0, 1]
    """
    generator = np.random.default_rng([seed, _THIN])
    kept = [
        generator.permutation(np.flatnonzero(labels == label))[:count]
        for label, count in enumerate(counts.tolist())
    ]
    return np.sort(np.concatenate(kept))


def long_tailed_plan(
    source: ImageSource,
    plan: StreamPlan,
    *,
    imbalance: float,
    tail: Tail = "ordered",
    head_images: int | None = None,
    seed: int = 0,
) -> StreamPlan:
    """Returns a class-incremental plan with a long tail.

    Args:
        source: Where the images come from.
        plan: A class-incremental plan over the source.
        imbalance: Ratio of the largest to the smallest class, at least 1.
        tail: `ordered`: each class has fewer images than the one before; `shuffled`: which class
            has how many follows the seed, apart from the class order.
        head_images: Images of the largest class, n_max; None takes the number that the smallest
            class of the source has, which any class can give.
        seed: Seed of the run.

    Raises:
        InputError: If a value is out of range, or a class has too few images for the profile.
    """
    if tail not in get_args(Tail):
        raise unknown_name("tail", tail, get_args(Tail))
    if seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}")
    available = np.bincount(source.train.targets)
    largest = int(available.min()) if head_images is None else head_images
    kept = _counts_by_rank(largest, len(plan.order), imbalance)
    places = np.array(plan.order)
    if tail == "shuffled":
        places = np.random.default_rng([seed, _RANKS]).permutation(len(places))
    counts = kept[np.argsort(places)]
    _check_available(source, available, counts)
    rows = thin_out(source.train.targets, counts, seed=seed)
    scenario = {
        "scenario": "long_tailed",
        "imbalance": imbalance,
        "tail": tail,
        "head_images": largest,
    }
    train = tuple(np.intersect1d(part, rows, assume_unique=True) for part in plan.train)
    return replace(plan, train=train, scenario=scenario)


def _counts_by_rank(head_images: int, num_classes: int, imbalance: float) -> Indices:
    if head_images < 1:
        raise InputError(f"head_images must be at least 1, got {head_images}")
    if not 1 <= imbalance < np.inf:
        raise InputError(f"imbalance must be at least 1, got {imbalance}")
    counts = profile(head_images, num_classes, imbalance)
    if not counts[-1]:
        raise InputError(
            f"imbalance must leave the smallest class an image, at most the {head_images} images "
            f"of the largest, got {imbalance}"
        )
    return counts


def _check_available(source: ImageSource, available: Indices, counts: Indices) -> None:
    for label in np.flatnonzero(counts > available):
        raise InputError(
            f"class {source.classes[label]!r} must have the {counts[label]} train images that the "
            f"profile gives it, got {available[label]}"
        )
