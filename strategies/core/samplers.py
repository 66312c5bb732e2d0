"""Orders of images, of which a pass may begin in the middle."""

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, Sampler

from cl_adapters.randomness import as_text, from_text

__all__ = ["ResumableBatchSampler", "ResumableIndexSampler", "ResumableSampler"]


class ResumableSampler:
    """Batches in an order drawn anew for each pass, of which a pass may begin in the middle.

    Attributes:
        generator: What draws the order.
        skip: Batches that the next pass, and it alone, leaves out without reading them.
    """

    generator: torch.Generator
    skip: int = 0

    def place(self) -> str:
        """Returns the state of the generator; before a pass it stands for the pass's order."""
        return as_text(self.generator.get_state())

    def go_to(self, place: str, skip: int) -> None:
        """Lets the next pass have the order that `place` stood for, and leave out some batches."""
        self.generator.set_state(from_text(place))
        self.skip = skip

    def taken(self) -> int:
        """Returns how many batches to skip now, and forgets it."""
        skip, self.skip = self.skip, 0
        return skip


class ResumableBatchSampler(ResumableSampler, BatchSampler):
    """torch's batch sampler over a random order of images.

    Args:
        sampler: Draws the order from `generator`.
        batch_size: Images a batch.
        drop_last: Leave out a last, smaller batch.
        generator: What draws.
    """

    def __init__(
        self, sampler: Sampler[int], batch_size: int, *, drop_last: bool, generator: torch.Generator
    ) -> None:
        BatchSampler.__init__(self, sampler, batch_size, drop_last)
        self.generator = generator

    def __iter__(self) -> Iterator[list[int]]:
        """Yields the indices of each batch."""
        # Drawn when the first is asked for, as torch does: the loader draws its own number before.
        return islice(BatchSampler.__iter__(self), self.taken(), None)


class ResumableIndexSampler(ResumableSampler):
    """All indices below a number, shuffled and cut into tensors; for loops without a loader.

    Args:
        count: Number of images, N.
        size: Images a part; the last may have fewer.
        generator: What draws.

    Example:
        >>> parts = ResumableIndexSampler(5, 2, torch.Generator().manual_seed(0))
        >>> place = parts.place()
        >>> first = list(parts)
        >>> parts.go_to(place, skip=1)
        >>> [part.tolist() for part in parts] == [part.tolist() for part in first[1:]]
        True
    """

    def __init__(self, count: int, size: int, generator: torch.Generator) -> None:
        self.generator = generator
        self._count, self._size = count, size

    def __len__(self) -> int:
        return -(-self._count // self._size)

    def __iter__(self) -> Iterator[Tensor]:
        """Yields the indices of each part, (B,)."""
        order = torch.randperm(self._count, generator=self.generator)
        return iter(torch.split(order, self._size)[self.taken() :])
