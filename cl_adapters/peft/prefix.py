"""Learned keys and values that every query may attend to."""

import torch
from torch import Tensor, nn

from cl_adapters.errors import check_positive
from cl_adapters.peft.initial import scale_parameter

__all__ = ["Prefix"]


class Prefix(nn.Module):
    """Learned keys and values that every query may attend to, in the projected space.

    For the slot `prefix`. With `renormalise` the prefix is weighed apart from the original
    positions, so that it has weight 1 for every query (LAE); without, one softmax weighs both.
    Starts uniform in [0, 0.01): of all PEFT modules the only one that changes the block from the
    first step on.

    Args:
        embed_dim: D, width of the key and value projections.
        length: L, number of learned positions; positive.
        renormalise: Whether the prefix is weighed apart.
        generator: Source of the initial weights.
    """

    def __init__(
        self,
        embed_dim: int,
        length: int,
        *,
        renormalise: bool = True,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        check_positive("length", length)
        self.renormalise = renormalise
        self.keys = nn.Parameter(
            torch.empty(length, embed_dim).uniform_(0, 0.01, generator=generator)
        )
        self.values = nn.Parameter(
            torch.empty(length, embed_dim).uniform_(0, 0.01, generator=generator)
        )
        self.key_scale = scale_parameter(None)
        self.value_scale = scale_parameter(None)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Returns the keys and the values, two tensors (L, D)."""
        return self.keys * self.key_scale, self.values * self.value_scale
