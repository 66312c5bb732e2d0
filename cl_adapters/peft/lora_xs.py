"""LoRA-XS: only an R x R matrix is trained, between singular vectors of the frozen weights.

Reference: Klaudia Bałazy, Mohammadreza Banaei, Karl Aberer, Jacek Tabor, "LoRA-XS: Low-Rank
Adaptation with Extremely Small Number of Parameters", 2024, arXiv:2405.17604. Published for
language models.

What differs from the authors' code: updates go to keys and values; the matrix starts at zero, which
still learns (`start="official"` draws it from a normal of 0.00001); singular vectors are exact, and
each has the sign that makes its largest entry positive.

Parameters a block, R rank: 2 R^2; 512 at R = 16. The vectors are no part of a state: they are
computed anew from the frozen weights. With them in common, the average of several updates is the
update of the averaged matrix.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from cl_adapters.peft.adapter_set import Slot
from cl_adapters.peft.site import Site, check_rank, frozen_weight

__all__ = ["LoRAXS", "between", "singular_parts", "singular_vectors"]


def singular_vectors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the largest singular values, (rank,), of a matrix between their vectors, in float64.

    Returns:
        U, (out, rank), of which the largest entry of each column is positive; S; V', (rank, in).
    """
    # On the CPU in double precision, so that every machine gets the same vectors.
    left, values, right = torch.linalg.svd(weight.detach().cpu().double(), full_matrices=False)
    left, right = left[:, :rank], right[:rank]
    largest = left.abs().argmax(dim=0, keepdim=True)
    signs = torch.where(left.gather(0, largest) < 0, -1.0, 1.0)  # (1, rank)
    return left * signs, values[:rank], right * signs.T


def singular_parts(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Returns U, (out, rank), and S V', (rank, in), whose product is nearest to a matrix.

    Example:
        >>> [part.tolist() for part in singular_parts(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), 1)]
        [[[1.0], [0.0]], [[2.0, 0.0]]]
    """
    left, values, right = singular_vectors(weight, rank)
    return left.float(), (values[:, None] * right).float()


def between(inputs: Tensor, up: Tensor, mix: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Returns B R A u for keys and for values.

    Shape:
        inputs: u, (B, N, D). up: (2, D, R). mix: (2, R, R). down: (2, R, D). Output: two tensors
        (B, N, D).
    """
    keys, values = (
        ((inputs @ rows.T) @ square.T) @ columns.T
        for columns, square, rows in zip(up, mix, down, strict=True)
    )
    return keys, values


class LoRAXS(nn.Module):
    """Updates U R (S V' u) of keys and values, U S V' the largest part of their frozen weights.

    For the slot `key_value`.

    Args:
        embed_dim: D, width of the stream and of the projections.
        rank: R, at least 1, at most the width.
        scale: What the updates are multiplied by.
        start: R at zero, or `official`.
        generator: Source of the official start.
        sites: The site of `key_value`, whose weights are taken apart.

    Attributes:
        mix: R of keys and of values, (2, R, R).
        down, up: S V', (2, R, D), and U, (2, D, R): frozen, in no state.

    Raises:
        InputError: If the rank does not fit the width, or there are no frozen weights.
    """

    def __init__(
        self,
        embed_dim: int,
        rank: int,
        *,
        scale: float = 1.0,
        start: Literal["zero", "official"] = "zero",
        generator: torch.Generator,
        sites: dict[Slot, Site],
    ) -> None:
        super().__init__()
        check_rank(rank, embed_dim)
        weight = frozen_weight(sites, "key_value", "LoRA-XS")
        parts = [singular_parts(each, rank) for each in weight.chunk(2)]
        # Buffers, since a stack keeps what differs from block to block.
        self.register_buffer("up", torch.stack([up for up, _ in parts]), persistent=False)
        self.register_buffer("down", torch.stack([down for _, down in parts]), persistent=False)
        self.up: Tensor
        self.down: Tensor
        self.mix = nn.Parameter(torch.zeros(2, rank, rank))
        self.scale = scale
        if start == "official":
            nn.init.normal_(self.mix, std=1e-5, generator=generator)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what is added to the keys and to the values.

        Shape:
            inputs: (B, N, D). Output: two tensors (B, N, D).
        """
        keys, values = between(inputs, self.up, self.mix, self.down)
        return keys * self.scale, values * self.scale

    def delta(self) -> Tensor:
        """Returns what merging adds to the weights of keys and values, (2 D, D)."""
        return (self.up @ self.mix @ self.down).flatten(0, 1) * self.scale
