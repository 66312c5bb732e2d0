"""Avalanche's train and test streams of any plan, and the datasets of their experiences."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

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

from cl_adapters.benchmarks.data.images import ImageSource, LabelledImages
from cl_adapters.benchmarks.streams.plans import StreamPlan
from cl_adapters.images.transforms import PIXELS_VERSION, Preprocess
from cl_adapters.records.files import digest
from cl_adapters.strategies.core.avalanche_types import AvalancheDataset
from cl_adapters.strategies.core.views import Views

__all__ = ["ImageDataset", "experience_dataset", "join_streams", "make_benchmark", "read_images"]


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
        images = self.images  # not by its `read`: this is the innermost loop of a run
        picture = images.store.pixels(int(images.rows[item])).view(_Picture)
        picture.key = self.keys[item]
        return picture, self.targets[item]


class _GroupReader:
    """Images as each group of transforms shows them, without Avalanche's layers of views.

    Args:
        images: Pairs of what the transforms take and a label.
        transforms: What makes the network's input, by group.
    """

    def __init__(
        self, images: Dataset[Any], transforms: Mapping[str, Callable[[Any], Any]]
    ) -> None:
        self._images, self._transforms = images, transforms

    def read(self, items: Sequence[int], group: str) -> torch.Tensor:
        """Returns images as a group shows them, (B, 3, S, S)."""
        images, show = self._images, self._transforms[group]
        return torch.stack([show(images[item][0]) for item in items])


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
        "train": _training_view(preprocess, views),
        "eval": preprocess.evaluate,
    }
    streams = {
        name: [_dataset(images, plan, preprocess, (group, transforms), t) for t in experiences]
        for name, images, group in (("train", source.train, "train"), ("test", source.test, "eval"))
    }
    return join_streams(**streams)


def join_streams(
    train: Sequence[AvalancheDataset],
    test: Sequence[AvalancheDataset],
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
) -> AvalancheDataset:
    group, transforms = shown
    part = plan.part(images, "train" if group == "train" else "test", experience)
    targets = plan.positions(part).tolist()
    keys = _pixel_keys(part, preprocess)
    decoded = ImageDataset(part, targets, keys)
    return experience_dataset(decoded, targets, transforms, group, pixel_keys=keys)


def _training_view(preprocess: Preprocess, views: Views | None) -> Callable[[Any], Any]:
    if preprocess.augment == "none":
        return preprocess.evaluate
    return preprocess.train if views is None else partial(_view, preprocess, views)


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
) -> AvalancheDataset:
    """Returns Avalanche's dataset of one experience, with task label 0.

    Args:
        images: Pairs of what the transforms take and a label.
        targets: The labels.
        transforms: What makes the network's input, for `train` and for `eval`.
        group: Which of them the dataset starts with.
        pixel_keys: Digest of what `eval` makes of each image, for a cache; empty if unknown.
    """
    groups = TransformGroups({name: (change, None) for name, change in transforms.items()})
    reader = _GroupReader(images, transforms)
    dataset = TaskAwareSupervisedClassificationDataset(
        [images],
        data_attributes=[
            DataAttribute(targets, "targets"),
            # Avalanche reads the first item of a constant sequence, even of an empty one.
            TaskLabels(ConstantSequence(0, len(targets)) if targets else []),
            *([DataAttribute(pixel_keys, "pixel_keys")] if pixel_keys else []),
            DataAttribute([(reader, item) for item in range(len(targets))], "image_readers"),
        ],
        transform_groups=groups,
    )
    # The constructor forgets which group is the current one.
    shown: AvalancheDataset = dataset.with_transforms(group)
    return shown


def read_images(stream: Any, every: int = 1) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401
    """Returns each how many-th image of a stream's experiences, (N, 3, S, S), and labels (N,)."""
    rows = [each.dataset[place] for each in stream for place in range(0, len(each.dataset), every)]
    return torch.stack([row[0] for row in rows]), torch.tensor([row[1] for row in rows])
