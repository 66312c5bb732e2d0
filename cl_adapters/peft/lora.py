"""Low-rank updates of frozen projections."""

from collections.abc import Sequence
from typing import ClassVar, Final, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError, check_positive
from cl_adapters.peft.adapter_set import Slot
from cl_adapters.peft.initial import scale_parameter, uniform_rows

__all__ = ["KeyValueLoRA", "Projection", "ProjectionLoRA"]

Projection = Literal["query", "key", "value"]
_PROJECTIONS: Final[tuple[Projection, ...]] = get_args(Projection)


class KeyValueLoRA(nn.Module):
    """Low-rank updates of the key and value projections: s_K B_K A_K u and s_V B_V A_V u.

    For the slot `key_value`. The queries stay untouched, there is no alpha / R factor. B starts at
    zero, the scales are learned and start at 1.

    Args:
        embed_dim: D, width of the stream and of the projections.
        rank: R; positive.
        generator: Source of the initial weights.

    Attributes:
        cuts: Of each parameter with a dimension of the stream, which one that is (MHR cuts there).
    """

    cuts: ClassVar[dict[str, int]] = {"key_down": 1, "key_up": 0, "value_down": 1, "value_up": 0}

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


class ProjectionLoRA(nn.Module):
    """Low-rank updates B A u of queries, keys and values in any choice, without a scale.

    For the slot `qkv`. B starts at zero.

    Args:
        embed_dim: D, width of the stream and of the projections.
        rank: R; positive.
        projections: Which are updated, at least one.
        generator: Source of the initial weights.

    Raises:
        InputError: If the rank is not positive, or the projections are none or others.
    """

    slot: ClassVar[Slot] = "qkv"
    default_size: ClassVar[int] = 8

    def __init__(
        self,
        embed_dim: int,
        rank: int,
        *,
        projections: Sequence[Projection] = ("query", "value"),
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        check_positive("rank", rank)
        if not projections or any(name not in _PROJECTIONS for name in projections):
            raise InputError(
                f"`projections` must be some of {', '.join(_PROJECTIONS)}, got {projections!r}"
            )
        self.down = nn.ParameterDict()
        self.up = nn.ParameterDict()
        for name in projections:
            self.down[name] = uniform_rows(rank, embed_dim, generator)
            self.up[name] = nn.Parameter(torch.zeros(embed_dim, rank))

    def forward(self, inputs: Tensor, output: Tensor) -> Tensor:
        """Returns what is added to queries, keys and values, before they are split into heads.

        Shape:
            inputs: (B, N, D). output: (B, N, 3 D). Output: (B, N, 3 D).
        """
        parts = [
            functional.linear(functional.linear(inputs, self.down[name]), self.up[name])
            if name in self.down
            else torch.zeros_like(inputs, dtype=output.dtype)
            for name in _PROJECTIONS
        ]
        return torch.cat(parts, dim=-1)

    def delta(self) -> Tensor:
        """Returns what merging adds to the weights of queries, keys and values, (3 D, D)."""
        width = next(iter(self.up.values())).shape[0]
        parts = [
            self.up[name] @ self.down[name]
            if name in self.down
            else next(iter(self.up.values())).new_zeros(width, width)
            for name in _PROJECTIONS
        ]
        return torch.cat(parts)
