"""Learned tokens beside those of the image: visual prompt tuning.

Reference: Menglin Jia, Luming Tang, Bor-Chun Chen, Claire Cardie, Serge Belongie, Bharath
Hariharan, Ser-Nam Lim, "Visual Prompt Tuning", ECCV 2022, arXiv:2203.12119.
"""

from typing import Final

import torch
from torch import Tensor, nn

from cl_adapters.errors import check_positive
from cl_adapters.peft.registry import Peft

__all__ = ["VPT_DEEP", "VPT_SHALLOW", "LearnedTokens"]


class LearnedTokens(nn.Module):
    """Tokens that are put in behind all others before a block, without position vectors.

    For the slot `tokens`. They start at zero, which is not neutral: attention gives them weight.

    Args:
        embed_dim: D, width of the stream.
        length: L, number of tokens; positive.
        is_kept: Leave them in the stream after the block.
    """

    place = "end"

    def __init__(self, embed_dim: int, length: int, *, is_kept: bool = False) -> None:
        super().__init__()
        check_positive("length", length)
        self.is_kept = is_kept
        self.rows = nn.Parameter(torch.zeros(length, embed_dim))

    def forward(self) -> Tensor:
        """Returns the tokens, (L, D)."""
        return self.rows


# Of every block its own, cut off after it; or of block 0, through all blocks.
VPT_DEEP: Final = Peft("tokens", 5, lambda dim, size, _: LearnedTokens(dim, size))
VPT_SHALLOW: Final = Peft("tokens", 5, lambda dim, size, _: LearnedTokens(dim, size, is_kept=True))
