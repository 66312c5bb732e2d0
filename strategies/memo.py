"""The images of an experience as the tokens that a frozen part of the network makes of them.

Where the images are not augmented at random, the tokens are computed once and kept in memory;
otherwise, or where they would not fit, they are computed at each use, without gradients.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

__all__ = ["ExperienceTokens"]

_BATCH = 64  # images a pass when the order does not matter


class ExperienceTokens:
    """Tokens (N, T, D) of the N images of an experience.

    Args:
        dataset: Avalanche's dataset of the experience.
        compute: From images (B, 3, S, S) to tokens (B, T, D), on the network's device.
        keep: Whether the images are the same at each use.
        megabytes: Most memory for what is kept.
    """

    def __init__(
        self,
        dataset: Any,  # noqa: ANN401 - Avalanche ships no types
        compute: Callable[[Tensor], Tensor],
        *,
        keep: bool,
        megabytes: float = 1024,
    ) -> None:
        self._dataset = dataset
        self._compute = compute
        self._keep = keep
        self._limit = megabytes * 2**20
        self._kept: Tensor | None = None
        self.targets = torch.tensor([int(label) for label in dataset.targets])

    def __len__(self) -> int:
        return len(self.targets)

    def shuffled(
        self, size: int, generator: torch.Generator, *, merge_last: bool = False
    ) -> list[Tensor]:
        """Returns the images' indices, shuffled and cut into parts.

        Args:
            size: Images a part.
            generator: Source of the order.
            merge_last: Let a last, smaller part join the one before.
        """
        parts = list(torch.split(torch.randperm(len(self), generator=generator), size))
        if merge_last and len(parts) > 1 and len(parts[-1]) < size:
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts

    @torch.no_grad()
    def batches(self, parts: Sequence[Tensor] | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields tokens and targets.

        Args:
            parts: Indices of each batch; None goes through all images in order.
        """
        parts = self._in_order() if parts is None else parts
        for inputs, targets, *_ in self.read(parts):
            yield (inputs if inputs.ndim == 3 else self._compute(inputs)), targets

    def training_batches(self, order: Iterable[Tensor]) -> Iterable[list[Tensor]]:
        """Returns what Avalanche's loop reads.

        Args:
            order: Gives the indices of each batch, in a new order at each pass.

        Its minibatches hold tokens where they are kept, else images; the orders are the same.
        """
        return _TrainingBatches(self, order)

    def read(self, parts: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """Yields tokens if they are kept, else images; targets; task labels."""
        kept = self._tokens()
        if kept is None:
            yield from self._loader(parts)
        else:
            for part in parts:
                yield [kept[part], self.targets[part], torch.zeros_like(part)]

    def _in_order(self) -> Sequence[Tensor]:
        return torch.split(torch.arange(len(self)), _BATCH)

    def _loader(self, parts: Sequence[Tensor]) -> Iterable[list[Tensor]]:
        # A loader draws a number for its workers: from a generator of its own, not torch's global.
        batches = [part.tolist() for part in parts]
        return DataLoader(self._dataset, batch_sampler=batches, generator=torch.Generator())

    @torch.no_grad()
    def _tokens(self) -> Tensor | None:
        if self._keep and self._kept is None:
            rows: list[Tensor] = []
            for images, *_ in self._loader(self._in_order()):
                rows.append(self._compute(images))
                if rows[0][0].nbytes * len(self) > self._limit:
                    self._keep = False
                    return None
            self._kept = torch.cat(rows)
        return self._kept


class _TrainingBatches:
    def __init__(self, source: ExperienceTokens, order: Iterable[Tensor]) -> None:
        self._source, self._order = source, order

    def __len__(self) -> int:
        return len(self._order)  # type: ignore[arg-type] # what is given here has a length

    def __iter__(self) -> Iterator[list[Tensor]]:
        return self._source.read(list(self._order))
