"""Avalanche's experiences and datasets, as far as our code reads them; loads nothing of Avalanche.

Avalanche ships no types. These protocols say what we count on, so that a mistake in a name is found
before a run, and what is given in place of them in a test or by a benchmark that is not ours.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, SupportsInt

__all__ = ["AvalancheBenchmark", "AvalancheDataset", "AvalancheExperience", "Targets"]


class Targets(Protocol):
    """The labels of a dataset, one an image."""

    @property
    def uniques(self) -> Iterable[Any]:
        """Every label that occurs."""

    def __len__(self) -> int:
        """Returns the number of images."""

    def __getitem__(self, item: int, /) -> SupportsInt:
        """Returns the label of an image."""

    def __iter__(self) -> Iterator[SupportsInt]:
        """Yields the labels in the order of the images."""


class AvalancheDataset(Protocol):
    """A classification dataset: images, labels and what follows them, in two groups of views."""

    @property
    def targets(self) -> Targets:
        """The labels."""

    def __len__(self) -> int:
        """Returns the number of images."""

    def __getitem__(self, item: int, /) -> Sequence[Any]:
        """Returns an image in the current view, its label and what else a minibatch has."""

    def train(self) -> "AvalancheDataset":
        """Returns the same images in the views of training."""

    def eval(self) -> "AvalancheDataset":
        """Returns the same images in the views of evaluation."""


class AvalancheExperience(Protocol):
    """A part of a stream."""

    @property
    def dataset(self) -> AvalancheDataset:
        """Its images."""

    @property
    def current_experience(self) -> int:
        """Its place in the stream, counted from 0."""


class AvalancheBenchmark(Protocol):
    """Two streams with as many experiences as they like."""

    @property
    def train_stream(self) -> Sequence[AvalancheExperience]:
        """What is learned."""

    @property
    def test_stream(self) -> Sequence[AvalancheExperience]:
        """What is tested."""
