"""MiSS, successor of Bone: one small matrix that all chunks of the input share; and Bat.

Reference: Jiale Kang, Qingyu Yin, arXiv:2409.15371, whose first version is "Bone: Block-Affine
Adaptation of Large Language Models". Published for language models.

What differs from the authors' code: updates go to keys and values; there is no dropout of the
input; `repeats` says how often D stands along the output, where theirs says how wide it is; Bat
takes ranks that do not divide the widths, with zeros for what the last blocks lack.

Parameters a block, D width of the stream, R rank: 2 R D, with `repeats` 2 R D / repeats; 24,576 at
D = 768 and R = 16, half of LoRA's. Bat: R times the least multiple of R that is not below 2 D.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import Slot
from cl_adapters.peft.site import Site, check_rank, frozen_weight

__all__ = ["Bat", "MiSS", "sum_of_chunks"]


def sum_of_chunks(inputs: Tensor, size: int) -> Tensor:
    """Returns the sum of the chunks of the last dimension, the last chunk filled up with zeros.

    Shape:
        inputs: (..., D). Output: (..., size).

    Example:
        >>> sum_of_chunks(torch.tensor([1.0, 2.0, 3.0]), 2)
        tensor([4., 2.])
    """
    filled = functional.pad(inputs, (0, -inputs.shape[-1] % size))
    return filled.reshape(*inputs.shape[:-1], -1, size).sum(dim=-2)


class MiSS(nn.Module):
    """Updates of keys and values: D' times the sum of the chunks of u, which are R wide.

    For the slot `key_value`. D starts at zero. As a matrix an update is D' beside D' beside D' ...,
    cut to the width of the input.

    Args:
        embed_dim: Width of the stream and of the projections.
        rank: R, at least 1, at most the width.
        repeats: How often one smaller D is repeated along the output (MiSS-mini); divides the
            width.
        generator: Not used: nothing is drawn.

    Raises:
        InputError: If the rank or the repeats do not fit the width.
    """

    def __init__(
        self,
        embed_dim: int,
        rank: int,
        *,
        repeats: int = 1,
        generator: torch.Generator,  # noqa: ARG002
    ) -> None:
        super().__init__()
        check_rank(rank, embed_dim)
        if repeats < 1 or embed_dim % repeats:
            raise InputError(f"`repeats` must divide the width, {embed_dim}, got {repeats}")
        self.repeats = repeats
        self.key = nn.Parameter(torch.zeros(rank, embed_dim // repeats))
        self.value = nn.Parameter(torch.zeros(rank, embed_dim // repeats))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what is added to the keys and to the values.

        Shape:
            inputs: (B, N, D). Output: two tensors (B, N, D).
        """
        chunks = sum_of_chunks(inputs, len(self.key))
        keys, values = chunks @ self.key, chunks @ self.value
        if self.repeats > 1:
            copies = (1,) * (inputs.ndim - 1) + (self.repeats,)
            return keys.repeat(copies), values.repeat(copies)
        return keys, values

    def delta(self) -> Tensor:
        """Returns what merging adds to the weights of keys and values, (2 D, D)."""
        width = self.key.shape[1] * self.repeats
        rows = torch.cat([each.T.repeat(self.repeats, 1) for each in (self.key, self.value)])
        return rows.repeat(1, -(-width // len(self.key)))[:, :width]


class Bat(nn.Module):
    """Updates of keys and values that mix each block of the frozen weights with its row's D_i.

    For the slot `key_value`. Block (i, j) of the weights, R x R, becomes W_ij + W_ij D_i + D_i. D
    starts at zero.

    Args:
        embed_dim: Width of the stream and of the projections.
        rank: R, at least 1, at most the width.
        generator: Not used: nothing is drawn.
        sites: The site of `key_value`, whose weights it keeps a copy of, in no state.

    Raises:
        InputError: If the rank does not fit the width.
    """

    def __init__(
        self,
        embed_dim: int,
        rank: int,
        *,
        generator: torch.Generator,  # noqa: ARG002
        sites: dict[Slot, Site],
    ) -> None:
        super().__init__()
        check_rank(rank, embed_dim)
        weight = frozen_weight(sites, "key_value", "Bat")
        # A buffer, since a stack keeps what differs from block to block.
        self.register_buffer("weight", weight.detach().clone(), persistent=False)
        self.weight: Tensor
        self.blocks = nn.Parameter(torch.zeros(-(-len(weight) // rank), rank, rank))

    def delta(self) -> Tensor:
        """Returns what merging adds to the weights of keys and values, (2 D, D)."""
        (rows, columns), size = self.weight.shape, self.blocks.shape[1]
        padded = functional.pad(self.weight, (0, -columns % size, 0, -rows % size))
        blocks = padded.reshape(len(self.blocks), size, -1, size)  # (I, R, J, R)
        mixed = torch.einsum("irjs,ist->irjt", blocks, self.blocks) + self.blocks[:, :, None]
        return mixed.flatten(2).flatten(0, 1)[:rows, :columns]

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what is added to the keys and to the values.

        Shape:
            inputs: (B, N, D). Output: two tensors (B, N, D).
        """
        keys, values = functional.linear(inputs, self.delta()).chunk(2, dim=-1)
        return keys, values
