"""Small Avalanche benchmarks of several makes."""

from collections.abc import Callable
from typing import Any

import torch
from avalanche.benchmarks import (
    benchmark_from_datasets,
    ni_benchmark,
    tensors_benchmark,
)
from avalanche.benchmarks.utils import as_classification_dataset
from torch import Tensor
from torch.utils.data import TensorDataset

from tests.conftest import coloured_images

QUICK = {
    "batch_size": 8, "epochs": 1, "freeze_epochs": 0, "descriptor_epochs": 1, "alignment_epochs": 1,
}  # fmt: skip


def images(labels: list[int], seed: int, spoil: Callable[[Tensor], Tensor] | None = None) -> Any:
    pixels = coloured_images(labels, seed)
    data = TensorDataset(spoil(pixels) if spoil else pixels, torch.tensor(labels))
    data.targets = labels
    return data


def by_class(classes: list[int], per_class: int) -> list[int]:
    return [label for label in classes for _ in range(per_class)]


def from_datasets(
    experiences: list[list[int]],
    tested: list[list[int]] | None = None,
    per_class: int = 4,
    **kwargs: Any,
) -> Any:
    tested = experiences if tested is None else tested
    return benchmark_from_datasets(
        train=[as_classification_dataset(images(by_class(each, per_class), 1, **kwargs)) for each in experiences],
        test=[as_classification_dataset(images(by_class(each, 3), 2, **kwargs)) for each in tested],
    )  # fmt: skip


def new_instances() -> Any:
    data = images(by_class([0, 1, 2], 8), 1), images(by_class([0, 1, 2], 2), 2)
    return ni_benchmark(*data, n_experiences=2, seed=4)


def tensors(*, complete: bool) -> Any:
    def pair(classes: list[int], count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        labels = by_class(classes, count)
        return coloured_images(labels, count), torch.tensor(labels, dtype=dtype)

    groups = [[0, 1], [2, 3]]
    return tensors_benchmark(
        train_tensors=[pair(each, 6, torch.uint8) for each in groups],
        test_tensors=[pair([0, 1, 2, 3], 2, torch.uint8)]
        if complete
        else [pair(each, 2, torch.uint8) for each in groups],
        task_labels=[0, 0],
        complete_test_set_only=complete,
    )
