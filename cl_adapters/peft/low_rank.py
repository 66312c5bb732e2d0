"""Low-rank updates of queries, keys and values: sums of them, and their merged form.

An update adds B A u to some of the projections of u in some blocks. As values updates can be
scaled, summed, run beside a frozen network, or turned into the weights that it would have with them
merged in. A bank keeps those of earlier experiences beside the one that is trained.

Shapes: D width of the stream and of each projection, R rank, L blocks, P projections that are
updated, T stored updates. Q is the number of down-projections a block has: P, or 1 where all
projections share one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.errors import InputError, check_positive
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.lora import Projection

__all__ = ["LowRankBank", "LowRankUpdate", "rescaled_rows"]

_ORDER: Final[tuple[Projection, ...]] = get_args(Projection)


@dataclass(frozen=True, eq=False)
class LowRankUpdate:
    """One update of some projections in some blocks, as a value.

    Attributes:
        down: A, (L, Q, R, D).
        up: B, (L, P, D, R).
        blocks: The L blocks.
        projections: The P projections, in the order of `up`.

    Example:
        >>> ones = torch.ones(1, 1, 1, 2)
        >>> update = LowRankUpdate(ones, 3 * ones.transpose(2, 3), [4], ["key"])
        >>> update.weights()[4]  # two rows each of queries, keys and values
        tensor([[0., 0.],
                [0., 0.],
                [3., 3.],
                [3., 3.],
                [0., 0.],
                [0., 0.]])
    """

    down: Tensor
    up: Tensor
    blocks: Sequence[int]
    projections: Sequence[Projection]

    def scaled(self, factors: Tensor) -> "LowRankUpdate":
        """Returns the update times a factor.

        Shape:
            factors: (), or (L, P) for one a block and projection.
        """
        return replace(self, up=self.up * factors[..., None, None])

    def adapters(self) -> AdapterSet:
        """Returns what a backbone runs with."""
        pairs = zip(self.blocks, self.down, self.up, strict=True)
        return AdapterSet(
            {("qkv", block): _Added(down, up, self.projections) for block, down, up in pairs}
        )

    def weights(self) -> dict[int, Tensor]:
        """Returns by block what the update adds to the weights of its three projections, (3 D, D).

        The rows are those of queries, keys and values, in this order.
        """
        products = self.up @ self.down  # (L, P, D, D), whatever Q is
        none = torch.zeros_like(products[0, 0])
        by_block = {}
        for block, product in zip(self.blocks, products, strict=True):
            held = dict(zip(self.projections, product, strict=True))
            by_block[block] = torch.cat([held.get(name, none) for name in _ORDER])
        return by_block


@dataclass(frozen=True, eq=False)
class _Added:
    """An update in one block: `down` is (Q, R, D), `up` (P, D, R)."""

    down: Tensor
    up: Tensor
    projections: Sequence[Projection]

    def __call__(self, inputs: Tensor, output: Tensor) -> Tensor:
        """Returns what is added to the output (B, N, 3 D) that a block makes of (B, N, D)."""
        hidden = [functional.linear(inputs, each) for each in self.down]
        if len(hidden) < len(self.projections):  # one for all
            hidden = hidden * len(self.projections)
        found = {
            name: functional.linear(rows, up)
            for name, rows, up in zip(self.projections, hidden, self.up, strict=True)
        }
        none = torch.zeros_like(inputs, dtype=output.dtype)
        return torch.cat([found.get(name, none) for name in _ORDER], dim=-1)


def rescaled_rows(up: Tensor, previous: Tensor) -> Tensor:
    """Returns B as it is, with gradients that count more in rows that were long before.

    The gradient of row j is multiplied by D ||b_j|| / sum over k of ||b_k||, b the rows of the
    previous B; by 1 where all of these are 0.

    Shape:
        up, previous: (..., D, R). Output: the same.
    """
    lengths = previous.norm(dim=-1, keepdim=True)
    total = lengths.mean(dim=-2, keepdim=True)
    share = torch.where(total > 0, lengths / total.clamp_min(torch.finfo(up.dtype).tiny), 1.0)
    # Its value is that of `up` to the last bit, whatever the share.
    return up.detach() + share * (up - up.detach())


class LowRankBank(GrowingBuffers):
    """The update that is trained, and those of earlier experiences, which never change.

    Everything is zero until `renew` sets the down-projections.

    Args:
        embed_dim: D.
        blocks: The blocks that are updated.
        rank: R of each update; positive.
        projections: Which are updated, at least one, in any order.
        shares_down: Give all projections of a block one down-projection.

    Attributes:
        down, up: Of the update in training, (L, Q, R, D) and (L, P, D, R).
        frozen_down, frozen_up: Those before, (T, L, Q, R, D) and (T, L, P, D, R).

    Raises:
        InputError: If the rank is not positive, there is no block, or the projections are none or
            others.
    """

    grows_by_learning = True

    def __init__(
        self,
        embed_dim: int,
        blocks: Sequence[int],
        rank: int,
        projections: Sequence[Projection],
        *,
        shares_down: bool = False,
    ) -> None:
        super().__init__()
        check_positive("rank", rank)
        if not blocks:
            raise InputError("a low-rank update must have at least one block, got none")
        if not projections or any(name not in _ORDER for name in projections):
            raise InputError(
                f"`projections` must be some of {', '.join(_ORDER)}, got {projections!r}"
            )
        self.blocks, self.projections = tuple(blocks), tuple(projections)
        downs = 1 if shares_down else len(self.projections)
        self.down = nn.Parameter(torch.zeros(len(blocks), downs, rank, embed_dim))
        self.up = nn.Parameter(torch.zeros(len(blocks), len(projections), embed_dim, rank))
        self.register_buffer("frozen_down", torch.zeros(0, *self.down.shape))
        self.register_buffer("frozen_up", torch.zeros(0, *self.up.shape))
        self.frozen_down: Tensor
        self.frozen_up: Tensor

    def __len__(self) -> int:
        return len(self.frozen_down)

    def current(self) -> LowRankUpdate:
        """Returns the update in training, with its gradients."""
        return self._update(self.down, self.up)

    def frozen(self, number: int) -> LowRankUpdate:
        """Returns one of the stored updates."""
        return self._update(self.frozen_down[number], self.frozen_up[number])

    def stored(self) -> LowRankUpdate:
        """Returns the sum of the stored updates, of rank T R; of rank 0 where there is none."""
        return self._joined(self.frozen_down, self.frozen_up)

    def total(self, factors: Tensor | None = None) -> LowRankUpdate:
        """Returns the sum of all updates, of rank (T + 1) R.

        Args:
            factors: One for each stored update and a last one for that in training, (T + 1,); None
                takes 1.
        """
        downs = torch.cat((self.frozen_down, self.down[None]))
        ups = torch.cat((self.frozen_up, self.up[None]))
        if factors is not None:
            ups = ups * factors.reshape(-1, 1, 1, 1, 1)
        return self._joined(downs, ups)

    @torch.no_grad()
    def renew(self, down: Tensor) -> None:
        """Begins a new update, which adds nothing yet.

        Args:
            down: A, (L, Q, R, D).
        """
        self.down.copy_(down)
        self.up.zero_()

    @torch.no_grad()
    def freeze(self, factors: Tensor | None = None) -> None:
        """Stores a copy of the update in training, which from then on adds nothing.

        Args:
            factors: What B is multiplied with, () or (L, P); None takes 1.
        """
        kept = self.current() if factors is None else self.current().scaled(factors)
        self.frozen_down = torch.cat((self.frozen_down, kept.down[None]))
        self.frozen_up = torch.cat((self.frozen_up, kept.up[None]))
        self.up.zero_()

    @torch.no_grad()
    def norms(self) -> Tensor:
        """Returns ||A|| ||B|| of the update in training, Frobenius norms.

        Shape:
            Output: (L, P).
        """
        found: Tensor = self.down.norm(dim=(2, 3)) * self.up.norm(dim=(2, 3))
        return found

    def _update(self, down: Tensor, up: Tensor) -> LowRankUpdate:
        return LowRankUpdate(down, up, self.blocks, self.projections)

    def _joined(self, downs: Tensor, ups: Tensor) -> LowRankUpdate:
        # Side by side along the rank: two products for all updates, however many.
        down = downs.permute(1, 2, 0, 3, 4).flatten(2, 3)
        return self._update(down, ups.permute(1, 2, 3, 0, 4).flatten(3, 4))
