"""MyAdapter: a low-rank update beside the MLP.

What the module computes, in three sentences.

Reference: authors, title, venue, year, arXiv id.

    output = B A x        A: (R, D), B: (D, R), B starts at zero

Shapes: B batch, N tokens, D width of the stream, R rank.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import Slot

__all__ = ["MyAdapter"]


class MyAdapter(nn.Module):
    """Adds a low-rank linear map of the tokens; leaves the block unchanged at the start.

    Args:
        embed_dim: D.
        size: R; positive.
        generator: Source of the initial weights.
    """

    # attention and mlp: added to the stream; key_value: returns a pair; prefix: takes no input.
    slot: ClassVar[Slot] = "mlp"
    default_size: ClassVar[int] = 8

    def __init__(self, embed_dim: int, size: int, *, generator: torch.Generator) -> None:
        super().__init__()
        if size < 1:
            raise InputError(f"`size` must be a positive integer, got {size}")
        self.down = nn.Parameter(torch.randn(size, embed_dim, generator=generator) / embed_dim**0.5)
        self.up = nn.Parameter(torch.zeros(embed_dim, size))

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns what is added to the stream.

        Shape:
            inputs: (B, N, D). Output: (B, N, D).
        """
        return inputs @ self.down.T @ self.up.T
