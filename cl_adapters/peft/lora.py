"""Low-rank updates of frozen projections."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import check_positive
from cl_adapters.peft.initial import scale_parameter, uniform_rows

__all__ = ["KeyValueLoRA"]


class KeyValueLoRA(nn.Module):
    """Low-rank updates of the key and value projections: s_K B_K A_K u and s_V B_V A_V u.

    For the slot `key_value`. The queries stay untouched, there is no alpha / R factor. B starts at
    zero, the scales are learned and start at 1.

    Args:
        embed_dim: D, width of the stream and of the projections.
        rank: R; positive.
        generator: Source of the initial weights.
    """

    def __init__(self, embed_dim: int, rank: int, *, generator: torch.Generator) -> None:
        super().__init__()
        check_positive("rank", rank)
        self.key_down = uniform_rows(rank, embed_dim, generator)
        self.key_up = nn.Parameter(torch.zeros(embed_dim, rank))
        self.key_scale = scale_parameter(None)
        self.value_down = uniform_rows(rank, embed_dim, generator)
        self.value_up = nn.Parameter(torch.zeros(embed_dim, rank))
        self.value_scale = scale_parameter(None)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what is added to the keys and to the values, before they are split into heads.

        Shape:
            inputs: (B, N, D). Output: two tensors (B, N, D).
        """
        keys = functional.linear(functional.linear(inputs, self.key_down), self.key_up)
        values = functional.linear(functional.linear(inputs, self.value_down), self.value_up)
        return keys * self.key_scale, values * self.value_scale
