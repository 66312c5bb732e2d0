"""Adapters of few bits: a bottleneck whose weights take 2^b values each.

Reference: Shibo Jie, Haoqing Wang, Zhi-Hong Deng, "Revisiting the Parameter Efficiency of Adapters
from the Perspective of Precision Redundancy", ICCV 2023, arXiv:2307.16867.

What differs from the authors' code: W_up starts at zero, and a matrix is quantised once its entries
differ, so that a new module adds exactly zero (`start="official"` draws W_up from a normal of 0.001
cut at twice that); an entry that equals the mean gets a level, and not the value between two.

Parameters a block, D width of the stream, R of the middle, b bits: 2 D R numbers in training,
49,152 at D = 768 and R = 32; stored in 2 D R b / 8 + 16 bytes, 6,160 with one bit.
"""

import functools
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError, check_positive
from cl_adapters.peft.initial import uniform_rows
from cl_adapters.peft.noise import draws
from cl_adapters.peft.noise import dropout as dropped

__all__ = ["OneBit", "levels", "pack", "quantised", "unpack", "unpack_codes"]

_ROUNDS = 500
_TINY = 1e-24  # variance of a matrix that is constant


@functools.cache
def levels(bits: int) -> tuple[Tensor, Tensor]:
    """Returns the values of a standard normal number in b bits, and the boundaries between them.

    Each value is the median of its cell, each boundary lies midway between two values.

    Shape:
        Output: (2^b,) and (2^b - 1,), float32.

    Example:
        >>> [round(each, 4) for part in levels(1) for each in part.tolist()]
        [-0.6745, 0.6745, 0.0]
    """
    if bits not in {1, 2, 4, 8}:
        raise InputError(f"`bits` must be 1, 2, 4 or 8, got {bits}")
    shares = torch.arange(1, 2**bits, dtype=torch.float64) / 2**bits
    bounds = torch.special.ndtri(shares)
    for _ in range(_ROUNDS):
        below = torch.cat([shares.new_zeros(1), torch.special.ndtr(bounds), shares.new_ones(1)])
        values = torch.special.ndtri((below[1:] + below[:-1]) / 2)
        bounds = (values[1:] + values[:-1]) / 2
    return values.float(), bounds.float()


def _coded(weight: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns codes, normalised weights, mean and deviation."""
    mean = weight.mean()
    deviation = weight.var().clamp_min(_TINY).sqrt()
    normal = (weight - mean) / (deviation + 1e-5)
    return (
        torch.bucketize(normal.detach(), levels(bits)[1].to(weight.device)),
        normal,
        mean,
        deviation,
    )


def quantised(weight: Tensor, bits: int = 1) -> Tensor:
    """Returns a matrix in b bits, c * deviation + mean; one whose entries are equal as it is.

    Gradients go straight through the levels c, and through mean and deviation.
    """
    codes, normal, mean, deviation = _coded(weight, bits)
    straight = levels(bits)[0].to(weight.device)[codes] + (normal - normal.detach())
    is_constant = deviation.detach().square() <= 2 * _TINY
    return torch.where(is_constant, weight, straight * deviation + mean)


@torch.no_grad()
def pack(weight: Tensor, bits: int = 1) -> tuple[Tensor, Tensor]:
    """Returns the codes, 8 / b in a byte, and mean and deviation, (2,)."""
    codes, _, mean, deviation = _coded(weight, bits)
    rows = functional.pad(codes.flatten(), (0, -codes.numel() % (8 // bits)))
    shifts = torch.arange(0, 8, bits, device=weight.device)
    packed = (rows.view(-1, 8 // bits) << shifts).sum(dim=1).to(torch.uint8)
    return packed, torch.stack((mean, deviation))


def unpack_codes(packed: Tensor, count: int, bits: int = 1) -> Tensor:
    """Returns the codes that bytes hold, int64.

    Shape:
        packed: (..., bytes). Output: (..., count).
    """
    shifts = torch.arange(0, 8, bits, device=packed.device)
    # By the function: what `>>` is traced as has no translation to ONNX.
    codes: Tensor = torch.bitwise_right_shift(packed.long()[..., None], shifts) & (2**bits - 1)
    return codes.flatten(-2)[..., :count]


def unpack(packed: Tensor, moments: Tensor, shape: tuple[int, ...], bits: int = 1) -> Tensor:
    """Returns what `quantised` made of a matrix of that shape, of what `pack` made of it."""
    codes = unpack_codes(packed, torch.Size(shape).numel(), bits)
    values = levels(bits)[0].to(packed.device)[codes]
    mean, deviation = moments
    found = values.view(shape) * deviation + mean
    return torch.where(deviation.square() <= 2 * _TINY, mean, found)


class OneBit(nn.Module):
    """A bottleneck without biases: s * Q(W_up) Dropout(ReLU(Q(W_down) x)).

    For the slot `mlp`.

    Args:
        embed_dim: D, width of the stream.
        width: R, width of the middle; positive.
        bits: b of an entry: 1, 2, 4 or 8.
        scale: s, chosen for each data set from 0.01 to 10 by the authors.
        dropout: Share of the middle dropped in training, in [0, 1).
        start: Of W_up: at zero, or `official`.
        generator: Source of the initial weights.

    Attributes:
        noise: Source of what is dropped; None takes torch's global one.
    """

    def __init__(  # noqa: PLR0913 - options of the published code
        self,
        embed_dim: int,
        width: int,
        *,
        bits: int = 1,
        scale: float = 1.0,
        dropout: float = 0.1,
        start: Literal["zero", "official"] = "zero",
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        check_positive("width", width)
        levels(bits)  # refuses others
        self.down = uniform_rows(width, embed_dim, generator)
        self.up = nn.Parameter(torch.zeros(embed_dim, width))
        if start == "official":
            nn.init.trunc_normal_(self.up, 0, 1e-3, -2e-3, 2e-3, generator=generator)
        self.bits, self.scale, self.dropout = bits, scale, dropout
        self.noise: torch.Generator | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns what is added to the stream, (B, N, D)."""
        hidden = functional.relu(functional.linear(inputs, quantised(self.down, self.bits)))
        if self.dropout and draws(self, self.up):
            hidden = dropped(hidden, self.dropout, self.noise)
        return functional.linear(hidden, quantised(self.up, self.bits)) * self.scale
