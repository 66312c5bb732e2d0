"""Routers that keep a row of numbers of each experience, and find out whose an image is.

    row_t       (A, K): what images of experience t take of each adapter, trained with it
    p(t | m)    linear discriminant analysis of the mean tokens of each experience's images
    portions    row_t of the newest experience where it is trained, else sum_t p(t | m) row_t

Papers that route by task are told the task at test time. Here nothing tells it, so that a
discriminant in each slot has to; an experience takes nothing of adapters that came after it. Before
it was told of any images, a router of several experiences refuses to answer.

Shapes: B batch, D width of the stream, K adapters, A entries with weights of their own, T
experiences.
"""

from abc import abstractmethod
from collections.abc import Collection
from typing import ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.errors import InputError
from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.peft.router import Router

__all__ = ["TINY", "ExperienceRouter", "ExperienceRows"]

TINY: Final = 1e-12  # the least that numbers are divided by


class ExperienceRows(GrowingBuffers):
    """The row of the newest experience, which is trained, and those of the earlier ones.

    Args:
        entries: A.
        draws: Whether training draws something of it, from a `noise` that is handed to it.

    Attributes:
        row: (A, K).
        kept: (T - 1, A, K): what the rows of earlier experiences came to; 0 for later adapters.
    """

    grows_by_learning = True

    def __init__(self, entries: int, *, draws: bool = False) -> None:
        super().__init__()
        if draws:
            self.noise: torch.Generator | None = None
        self.row = nn.Parameter(torch.zeros(entries, 0))
        self.register_buffer("kept", torch.zeros(0, entries, 0))
        self.kept: Tensor

    def set(self, row: Tensor) -> None:
        """Takes another row of the newest experience."""
        self.row = nn.Parameter(row.detach().to(self.row.device))

    def keep(self, portions: Tensor) -> None:
        """Keeps what the newest row came to, (A, K), as that of an experience that is over."""
        self.kept = torch.cat([_fitted(self.kept, portions.shape[1]), portions[None]])


class ExperienceRouter(Router):
    """Keeps a row an experience, and mixes rows by how likely an image is of each.

    Args:
        embed_dim: D.
        entries: A.
        draws: Whether training draws something of the rows.

    Attributes:
        sums_to_one: Whether the K numbers of an entry sum to 1.
    """

    knows_experiences = True
    sums_to_one: ClassVar[bool] = False

    def __init__(self, embed_dim: int, entries: int, *, draws: bool = False) -> None:
        super().__init__(embed_dim)
        self.rows = ExperienceRows(entries, draws=draws)
        self.finder = LinearDiscriminant(embed_dim)
        self._owns_rows = True

    @abstractmethod
    def fresh(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns a new row for `count` adapters, (A, K)."""

    def weigh(self, row: Tensor) -> Tensor:
        """Returns what a row comes to, (A, K)."""
        return row

    def parts(self) -> dict[str, nn.Module]:
        """Returns the modules that it keeps; rows that all blocks share are the first one's."""
        return {
            name: part
            for name, part in super().parts().items()
            if self._owns_rows or part is not self.rows
        }

    def share(self, first: Router) -> None:
        """Takes the rows of the first block's router, where all blocks share them."""
        if self.shares_blocks and isinstance(first, ExperienceRouter):
            self.rows, self._owns_rows = first.rows, False

    def add_adapter(self, generator: torch.Generator) -> None:
        """Gives the newest experience's row an entry more; one that is not begun is drawn anew."""
        if not self._owns_rows:
            return
        row = self.rows.row
        new = self.fresh(row.shape[1] + 1, generator)
        self.rows.set(new if self.asks() else torch.cat([row, new[:, -1:].to(row)], dim=1))

    @torch.no_grad()
    def begin_experience(self, generator: torch.Generator) -> None:
        """Keeps the newest row as it is, and begins that of another experience."""
        if self._owns_rows:
            self.rows.keep(self.weigh(self.rows.row))
            self.rows.set(self.fresh(self.rows.row.shape[1], generator))

    def asks(self) -> bool:
        """Says whether it was not told of the newest experience's images yet."""
        return len(self.finder.counts) <= len(self.rows.kept)

    def update(self, mean_tokens: Tensor, adapter: int) -> None:
        """Tells it which images the newest experience has."""
        del adapter
        newest = len(self.rows.kept)
        self.finder.add_classes([newest])
        self.finder.add(mean_tokens, torch.full((len(mean_tokens),), newest))

    def newest_parameters(self) -> list[nn.Parameter]:
        """Returns the newest experience's row."""
        return [self.rows.row]

    def cost(self) -> int:
        """Returns the numbers of an adapter in a row."""
        return len(self.rows.row) if self._owns_rows else 0

    def route(
        self, mean_tokens: Tensor, count: int, left_out: Collection[int] = frozenset()
    ) -> Tensor:
        """Returns what images take of each adapter.

        Shape:
            mean_tokens: (B, D). Output: (B, A, K), or (1, A, K) where all images take the same.
        """
        portions = _fitted(self._found(mean_tokens), count)
        return self._without(portions, left_out) if left_out else portions

    def _without(self, portions: Tensor, left_out: Collection[int]) -> Tensor:
        stays = torch.ones(portions.shape[2]).index_fill(0, torch.tensor(sorted(left_out)), 0)
        stays = stays.to(portions)
        kept = portions * stays
        # Adapters that the image's experience did not know stand in evenly for those it did.
        even = (stays / stays.sum().clamp_min(1)).expand_as(kept)
        kept = torch.where((kept == 0).all(dim=2, keepdim=True), even, kept)
        if self.sums_to_one:
            kept = kept / kept.sum(dim=2, keepdim=True).clamp_min(TINY)
        return kept

    def _found(self, mean_tokens: Tensor) -> Tensor:
        rows, told = self.rows, len(self.finder.counts)
        own = self.weigh(rows.row)[None]
        if rows.training or not len(rows.kept):
            return own
        if not told:
            raise InputError(
                f"router {type(self).__name__} must be told which images each experience has "
                "before it answers, since nothing else says whose an image is, got none of "
                f"{len(rows.kept) + 1} experiences"
            )
        table = torch.cat([_fitted(rows.kept, own.shape[2]), own])[:told]  # (T, A, K)
        likely: Tensor = self.finder(mean_tokens).exp()
        return (likely[:, :, None, None] * table).sum(dim=1)

    def shares(self, portions: Tensor) -> Tensor:
        """Returns how much of the weight goes to each adapter, by absolute value, (B, K)."""
        sizes = portions.abs().sum(dim=1)
        return sizes / sizes.sum(dim=1, keepdim=True).clamp_min(TINY)


def _fitted(portions: Tensor, count: int) -> Tensor:
    # (..., K): nothing for adapters that came later.
    return functional.pad(portions, (0, count - portions.shape[-1]))
