"""Batches without a data loader's work a sample: indices, images in order, features.

Where a dataset says how its images are read (`image_readers`, a DataAttribute of pairs of an
`ImageReader` and the image's number in it), a batch of images is read straight from there, not
through Avalanche's layers of views. What a stranger's dataset shows is read image by image.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Literal, Protocol, cast

import torch
from torch import Tensor

from cl_adapters.randomness import kept_random_states
from cl_adapters.strategies.core.avalanche_types import AvalancheDataset
from cl_adapters.strategies.core.samplers import ResumableBatchSampler

__all__ = [
    "Group",
    "ImageReader",
    "IndexBatches",
    "MadeBatches",
    "label_tensors",
    "read_images",
    "reader_of",
]

Group = Literal["train", "eval"]
Read = Callable[[Tensor], Tensor]


class ImageReader(Protocol):
    """Images as the groups of a dataset's transforms show them."""

    def read(self, items: Sequence[int], group: Group) -> Tensor:
        """Returns images (B, 3, S, S)."""


class IndexBatches:
    """What torch's `DataLoader` over indices gives, tensors (B,), without its work a batch.

    Args:
        order: The batches; a loader would have its generator too.
    """

    def __init__(self, order: ResumableBatchSampler) -> None:
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Tensor]:
        """Draws an order and yields its batches."""
        parts = iter(self._order)
        # A loader draws a seed for its workers, before the order.
        torch.empty((), dtype=torch.int64).random_(generator=self._order.generator)
        return map(torch.tensor, parts)


class MadeBatches:
    """Minibatches for Avalanche's loop, one order at each pass: inputs, targets, task labels.

    Args:
        orders: Gives the parts (B,) of an order each time it is gone through.
        read: From indices (B,) to inputs (B, ...).
        labels: Targets and task labels of all images, (N,) each.
        numbered: Let the indices stand between targets and task labels.
        pinned: Put images where a GPU fetches them itself.
    """

    def __init__(
        self,
        orders: Iterable[Tensor],
        read: Read,
        labels: tuple[Tensor, Tensor],
        *,
        numbered: bool = False,
        pinned: bool = False,
    ) -> None:
        self._orders, self._read, self._labels = orders, read, labels
        self._numbered, self._pinned = numbered, pinned

    def __len__(self) -> int:
        return len(cast("Sized", self._orders))

    def __iter__(self) -> Iterator[list[Tensor]]:
        targets, tasks = self._labels
        for part in self._orders:
            inputs = self._read(part)
            if self._pinned and inputs.device.type == "cpu":
                inputs = inputs.pin_memory()
            middle = [part] if self._numbered else []
            yield [inputs, targets[part], *middle, tasks[part]]


def label_tensors(dataset: AvalancheDataset) -> tuple[Tensor, Tensor]:
    """Returns targets and task labels of a dataset, (N,) each; 0 where it has no task labels."""
    targets = torch.tensor([int(label) for label in dataset.targets], dtype=torch.int64)
    tasks = torch.tensor(
        [int(task) for task in getattr(dataset, "targets_task_labels", ())], dtype=torch.int64
    )
    return targets, tasks if len(tasks) else torch.zeros_like(targets)


def reader_of(dataset: AvalancheDataset, group: Group) -> Read | None:
    """Returns what reads a dataset's images by indices (B,); None if it does not say how.

    Nor does it count where the dataset shows something else: Avalanche keeps attributes when a
    dataset gets other transforms, so the first image of each reader is compared.

    Args:
        dataset: Avalanche's dataset, whose images are no chance at the moment.
        group: What it shows at the moment.
    """
    readers: Sequence[tuple[ImageReader, int]] = list(getattr(dataset, "image_readers", ()))
    if not readers or not _shows_what_is_read(dataset, readers, group):
        return None

    def read(part: Tensor) -> Tensor:
        chosen = [readers[index] for index in part.tolist()]
        if len({id(reader) for reader, _ in chosen}) == 1:
            together: Tensor = chosen[0][0].read([item for _, item in chosen], group)
            return together
        return torch.stack([reader.read([item], group)[0] for reader, item in chosen])

    return read


def _shows_what_is_read(
    dataset: AvalancheDataset, readers: Sequence[tuple[ImageReader, int]], group: Group
) -> bool:
    firsts = {id(reader): index for index, (reader, _) in [*enumerate(readers)][::-1]}
    with kept_random_states():  # a stranger's transform may draw
        for index in firsts.values():
            reader, item = readers[index]
            shown, read = dataset[index][0], reader.read([item], group)[0]
            if not isinstance(shown, Tensor) or not torch.equal(shown, read):
                return False
    return True


def read_images(dataset: AvalancheDataset) -> Read:
    """Returns what reads a dataset's images by indices (B,), through all its transforms."""

    def read(part: Tensor) -> Tensor:
        return torch.stack([dataset[index][0] for index in part.tolist()])

    return read
