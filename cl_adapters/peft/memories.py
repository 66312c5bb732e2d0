"""A router without training: an image goes to the adapter whose memory it resembles most.

    b(m) = sign(P' [(m - c) / s, 1]),  memory_k = sum of b over the images of adapter k
    weight of adapter k = 1 where cos(b(m), memory_k) is the largest, else 0

with m the mean token that enters a slot, c and s mean and spread of the first images that were
added, which then stay, and P fixed random directions (`cl_adapters/shift/hdc.py`). Of EAR's routing
only the abstract was seen; the 1 beside m and the choice of c are ours.

Shapes: B batch, D width of the stream, K adapters, H dimensions.
"""

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.shift.hdc import hyper_directions, hyper_signs

__all__ = ["SignMemories"]

_DIMENSIONS: Final = 2048


class SignMemories(nn.Module):
    """A memory an adapter, of constant size; memories of parts of the images add up.

    Args:
        embed_dim: D.
        dimensions: H.
    """

    def __init__(self, embed_dim: int, dimensions: int = _DIMENSIONS) -> None:
        super().__init__()
        directions = hyper_directions(embed_dim, dimensions, seed=0)
        # Follows from D and H alone, so it is no part of a state.
        self.register_buffer("directions", directions, persistent=False)
        self.register_buffer("centre", torch.zeros(embed_dim))
        self.register_buffer("spread", torch.zeros(()))  # 0 until images have come
        self.register_buffer("memories", torch.zeros(0, dimensions))
        self.directions: Tensor
        self.centre: Tensor
        self.spread: Tensor
        self.memories: Tensor

    def add_adapter(self) -> None:
        """Adds an empty memory."""
        self.memories = functional.pad(self.memories, (0, 0, 0, 1))

    @torch.no_grad()
    def add(self, mean_tokens: Tensor, adapter: int) -> None:
        """Adds images to the memory of an adapter.

        Shape:
            mean_tokens: (B, D).
        """
        rows = mean_tokens.float().to(self.centre.device)
        if not bool(self.spread):
            self.centre.copy_(rows.mean(dim=0))
            spread = (rows - self.centre).square().sum(dim=1).mean().sqrt()
            self.spread.copy_(spread.clamp_min(1e-6 * (1 + self.centre.norm())))
        signs = hyper_signs(rows, self.centre, self.spread, self.directions)
        self.memories[adapter] += signs.sum(dim=0)

    def forward(self, mean_tokens: Tensor) -> Tensor:
        """Returns the cosine to each adapter's memory.

        Shape:
            mean_tokens: (B, D). Output: (B, K).
        """
        signs = hyper_signs(mean_tokens.float(), self.centre, self.spread, self.directions)
        memories = functional.normalize(self.memories, dim=1)
        return functional.linear(signs, memories) / math.sqrt(self.memories.shape[1])
