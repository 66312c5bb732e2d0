"""Class-incremental streams, an order of the classes cut into experiences; Avalanche's of any plan.

Inside a class-incremental stream a class is its position in the order, 0 to C - 1, so that the
classes of experience t are the next ones after those of t - 1. Nothing here touches a global random
state.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from operator import index
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import PIL
import torch
from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline, with_task_labels
from avalanche.benchmarks.scenarios import CLScenario
from avalanche.benchmarks.utils import (
    ConstantSequence,
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
    TaskLabels,
    TransformGroups,
)
from torch.utils.data import Dataset

from cl_adapters.benchmarks.images import ImageSource, LabelledImages
from cl_adapters.benchmarks.plans import StreamPlan
from cl_adapters.benchmarks.transforms import PIXELS_VERSION, Preprocess
from cl_adapters.errors import InputError, unknown_name
from cl_adapters.records import digest
from cl_adapters.strategies.views import Views

__all__ = [
    "StreamPlan",
    "class_order",
    "experience_dataset",
    "join_streams",
    "make_benchmark",
    "make_plan",
    "order_rule",
    "split_classes",
]

ORDER_RULES: Final = ("natural", "seeded", "numpy1993")


def class_order(rule: str | Sequence[int], num_classes: int, seed: int = 0) -> tuple[int, ...]:
    """Returns the classes in the order in which a stream brings them.

    Args:
        rule: `natural`; `seeded`, by the run's seed; `numpy1993`, the field's fixed order (NumPy's
            legacy generator with seed 1993); or the order itself, as numbers or `3,0,2,1`.
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
    if rule == "numpy1993":
        legacy = np.random.RandomState(1993)  # the published orders come from it
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
    labels = [[ordered[position] for position in each] for each in experiences]
    train, test = (
        tuple(np.flatnonzero(np.isin(images.targets, each)) for each in labels)
        for images in (source.train, source.test)
    )
    return StreamPlan(
        rule=order_rule(order),
        order=ordered,
        classes=tuple(source.classes[label] for label in ordered),
        experiences=experiences,
        train=train,
        test=test,
    )


def order_rule(order: str | Sequence[int]) -> str:
    """Returns the name of a class order's rule, or `explicit`."""
    return order if isinstance(order, str) and order in ORDER_RULES else "explicit"


class _Picture(np.ndarray[Any, np.dtype[np.uint8]]):
    """Pixels that know the key of their image, which says what view of it to show."""

    key: bytes


class ImageDataset(Dataset[tuple[npt.NDArray[np.uint8], int]]):
    """Decoded images with the position of their class, for Avalanche's datasets.

    Attributes:
        targets: Position in the class order, one an image.
        keys: Digest of what evaluation shows of each image.
    """

    def __init__(self, images: LabelledImages, targets: list[int], keys: list[bytes]) -> None:
        self.images = images
        self.targets = targets
        self.keys = keys

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, item: int) -> tuple[npt.NDArray[np.uint8], int]:
        picture = self.images.read(item).view(_Picture)
        picture.key = self.keys[item]
        return picture, self.targets[item]


def make_benchmark(
    source: ImageSource,
    plan: StreamPlan,
    preprocess: Preprocess,
    views: Views | None = None,
) -> CLScenario:
    """Returns Avalanche's train and test streams of a plan.

    The images of test experience t are those of `plan.test[t]` in that order.
    Minibatches are (image, target, task label 0): Avalanche's metrics per class and top-k work
    only with task labels.

    Args:
        source: Where the images come from.
        plan: What comes when.
        preprocess: From decoded image to the network's input.
        views: What says which view training shows; None draws from torch's global source.
    """
    experiences = range(len(plan.experiences))
    transforms = {
        "train": preprocess.train if views is None else partial(_view, preprocess, views),
        "eval": preprocess.evaluate,
    }
    streams = {
        name: [_dataset(images, plan, preprocess, (group, transforms), t) for t in experiences]
        for name, images, group in (("train", source.train, "train"), ("test", source.test, "eval"))
    }
    return join_streams(**streams)


def join_streams(
    train: Sequence[TaskAwareSupervisedClassificationDataset],
    test: Sequence[TaskAwareSupervisedClassificationDataset],
) -> CLScenario:
    """Returns the benchmark of what `experience_dataset` made, one an experience.

    Like Avalanche's older benchmarks, and much code written for them, it knows `n_classes` and
    `n_experiences`.
    """
    benchmark = with_task_labels(
        with_classes_timeline(benchmark_from_datasets(train=list(train), test=list(test)))
    )
    benchmark.n_classes = len({label for each in train for label in each.targets.uniques})
    benchmark.n_experiences = len(train)
    return benchmark


def _dataset(
    images: LabelledImages,
    plan: StreamPlan,
    preprocess: Preprocess,
    shown: tuple[str, Mapping[str, Callable[[Any], Any]]],
    experience: int,
) -> TaskAwareSupervisedClassificationDataset:
    group, transforms = shown
    part = plan.part(images, "train" if group == "train" else "test", experience)
    targets = plan.positions(part).tolist()
    keys = _pixel_keys(part, preprocess)
    decoded = ImageDataset(part, targets, keys)
    return experience_dataset(decoded, targets, transforms, group, pixel_keys=keys)


def _view(preprocess: Preprocess, views: Views, picture: _Picture) -> torch.Tensor:
    """Returns the view that an image shows now, drawn from its own digest."""
    seed = int.from_bytes(views.key(picture.key)[:7], "big")
    return preprocess.train(picture, torch.Generator().manual_seed(seed))


def _pixel_keys(images: LabelledImages, preprocess: Preprocess) -> list[bytes]:
    """Returns a digest of what evaluation shows of each image: equal for equal inputs only."""
    made_by = {"pillow": PIL.__version__, "code": PIXELS_VERSION}
    pipeline = digest({**preprocess.describe_evaluation(), **made_by}, length=64).encode()
    return [hashlib.sha256(pipeline + image).digest() for image in images.digests]


def experience_dataset(
    images: Dataset[Any],
    targets: Sequence[int],
    transforms: Mapping[str, Callable[[Any], Any]],
    group: str,
    *,
    pixel_keys: Sequence[bytes] = (),
) -> TaskAwareSupervisedClassificationDataset:
    """Returns Avalanche's dataset of one experience, with task label 0.

    Args:
        images: Pairs of what the transforms take and a label.
        targets: The labels.
        transforms: What makes the network's input, for `train` and for `eval`.
        group: Which of them the dataset starts with.
        pixel_keys: Digest of what `eval` makes of each image, for a memo; empty if unknown.
    """
    groups = TransformGroups({name: (change, None) for name, change in transforms.items()})
    dataset = TaskAwareSupervisedClassificationDataset(
        [images],
        data_attributes=[
            DataAttribute(targets, "targets"),
            # Avalanche reads the first item of a constant sequence, even of an empty one.
            TaskLabels(ConstantSequence(0, len(targets)) if targets else []),
            *([DataAttribute(pixel_keys, "pixel_keys")] if pixel_keys else []),
        ],
        transform_groups=groups,
    )
    # The constructor forgets which group is the current one.
    return dataset.with_transforms(group)
