"""TLEG's sharing: the adapters of all blocks are one line over depth, a base and a slope.

Reference: Shiyu Xia, Miaosen Zhang, Xu Yang, Ruiming Chen, Haokun Chen, Xin Geng, "Transformer as
Linear Expansion of Learngene", AAAI 2024, arXiv:2312.05614. Published for whole networks, whose
layers it makes.

What is ours: that PEFT modules are what is shared, bottlenecks beside the MLP; the base starts as
such a module does and the slope at zero, where theirs are both drawn.

Parameters of all blocks together, D width of the stream, R of the middle: 2 (2 D R + R + D);
50,720 at D = 768 and R = 16, a sixth of twelve bottlenecks.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import check_positive
from cl_adapters.peft.initial import uniform_rows

__all__ = ["Line", "OnLine", "on_a_line"]

_NAMES: Final = ("down", "down_bias", "up", "up_bias")


class Line(nn.Module):
    """What the blocks share: the weights theta + s theta' of a bottleneck, at each share s.

    Args:
        embed_dim: D, width of the stream.
        width: R, width of the middle; positive.
        generator: Source of the initial weights.

    Attributes:
        base, slope: theta and theta', by name.
    """

    def __init__(self, embed_dim: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        check_positive("width", width)
        shapes = (width, embed_dim), (width,), (embed_dim, width), (embed_dim,)
        pairs = list(zip(_NAMES, shapes, strict=True))
        self.base = nn.ParameterDict({name: torch.zeros(shape) for name, shape in pairs})
        self.base["down"] = uniform_rows(width, embed_dim, generator)
        self.slope = nn.ParameterDict({name: torch.zeros(shape) for name, shape in pairs})

    def at(self, share: float) -> dict[str, Tensor]:
        """Returns the weights at a share of the depth, by name."""
        return {name: self.base[name] + share * self.slope[name] for name in _NAMES}


class OnLine(nn.Module):
    """The bottleneck of a block: W_up ReLU(W_down x + b_down) + b_up, its weights from the line.

    For the slot `mlp`.

    Args:
        line: What all blocks share.
        share: Of the depth, in [0, 1).
        holds: Whether the line is part of this module's state, as of one block's it has to be.
    """

    def __init__(self, line: Line, share: float, *, holds: bool) -> None:
        super().__init__()
        self.line = line if holds else None
        self._lines = [line]  # in a list, where torch does not look for parts of a module
        self.share = share

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns what is added to the stream, (B, N, D)."""
        weights = self._lines[0].at(self.share)
        hidden = functional.relu(functional.linear(inputs, weights["down"], weights["down_bias"]))
        return functional.linear(hidden, weights["up"], weights["up_bias"])


def on_a_line(
    embed_dim: int, width: int, *, blocks: int, generator: torch.Generator
) -> list[nn.Module]:
    """Returns the modules of some blocks: the l-th of L stands at the share l / L.

    Args:
        embed_dim: D, width of the stream.
        width: R, width of the middle; positive.
        blocks: L.
        generator: Source of the initial weights.
    """
    line = Line(embed_dim, width, generator)
    return [OnLine(line, block / blocks, holds=block == 0) for block in range(blocks)]
