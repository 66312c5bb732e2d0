"""The bottleneck adapter of SEMA, MOS and LAE."""

from collections.abc import Callable
from typing import ClassVar, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError, check_positive
from cl_adapters.peft.initial import scale_parameter, uniform_rows
from cl_adapters.peft.noise import draws
from cl_adapters.peft.noise import dropout as dropped

__all__ = ["ACTIVATIONS", "Activation", "Bottleneck"]

Activation = Literal["relu", "gelu"]
ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
}


class Bottleneck(nn.Module):
    """Two linear layers with a narrow middle: s * (W_up act(W_down x + b_down) + b_up).

    For the slots `attention` and `mlp`. W_up and both biases start at zero, so a new module
    outputs exactly zero.

    Args:
        embed_dim: D, width of the stream.
        width: R, width of the middle; positive.
        activation: `gelu` in LAE, `relu` in SEMA and MOS.
        scale: Fixed factor s (0.1 in MOS, 1 in SEMA); None learns it, starting at 1 (LAE).
        dropout: Share of the middle dropped in train mode, in [0, 1) (0.1 in MOS).
        generator: Source of the initial weights.

    Attributes:
        noise: Source of what is dropped; None takes torch's global one.
        cuts: Of each parameter with a dimension of the stream, which one that is (MHR cuts there).
        is_plain: Whether it is W_up relu(W_down x + b_down) + b_up and no more, as SEMA's.

    Example:
        >>> module = Bottleneck(8, 2, generator=torch.Generator().manual_seed(0))
        >>> bool((module(torch.randn(3, 5, 8)) == 0).all())
        True
    """

    cuts: ClassVar[dict[str, int]] = {"down": 1, "up": 0, "up_bias": 0}

    def __init__(
        self,
        embed_dim: int,
        width: int,
        *,
        activation: Activation = "gelu",
        scale: float | None = None,
        dropout: float = 0.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        check_positive("width", width)
        if not 0 <= dropout < 1:
            raise InputError(f"`dropout` must lie in [0, 1), got {dropout}")
        self.down = uniform_rows(width, embed_dim, generator)
        self.down_bias = nn.Parameter(torch.zeros(width))
        self.up = nn.Parameter(torch.zeros(embed_dim, width))
        self.up_bias = nn.Parameter(torch.zeros(embed_dim))
        self.scale = scale_parameter(scale)
        self.activation = activation
        self.dropout = dropout
        self.noise: torch.Generator | None = None
        self.is_plain = activation == "relu" and scale == 1 and not dropout

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns what is added to the stream.

        Shape:
            inputs: (B, N, D). Output: (B, N, D).
        """
        hidden = ACTIVATIONS[self.activation](functional.linear(inputs, self.down, self.down_bias))
        if self.dropout and draws(self, self.up):
            hidden = dropped(hidden, self.dropout, self.noise)
        return functional.linear(hidden, self.up, self.up_bias) * self.scale
