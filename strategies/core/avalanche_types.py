"""What we use of Avalanche's experiences and datasets, as types: Avalanche ships none."""

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["Experience", "ExperienceDataset", "Labels"]


class Labels(Protocol):
    """A label an image, and which occur."""

    uniques: set[int]

    def __len__(self) -> int: ...

    def __getitem__(self, item: int) -> int: ...


class ExperienceDataset(Protocol):
    """The images of an experience, shown by one of two groups of transforms."""

    targets: Labels
    targets_task_labels: Sequence[int]

    def __len__(self) -> int: ...

    def __getitem__(self, item: int) -> tuple[Any, ...]: ...

    def train(self) -> "ExperienceDataset":
        """Returns the same images, augmented."""

    def eval(self) -> "ExperienceDataset":
        """Returns the same images, as evaluation shows them."""


class Experience(Protocol):
    """A step of the stream."""

    dataset: ExperienceDataset
    current_experience: int
