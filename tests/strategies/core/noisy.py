"""A PEFT module that draws in train mode, and tells how it was called."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional


class Noisy(nn.Module):
    """Adds what it learned of each token, half of it dropped in train mode."""

    slot, default_size = "mlp", 1
    # Of each call: whether in train mode, and whether nothing of it is trained.
    calls: ClassVar[list[tuple[bool, bool]]] = []

    def __init__(self, embed_dim: int, size: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.gain = nn.Parameter(0.3 * torch.randn(size, embed_dim, generator=generator))

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls.append((self.training, not self.gain.requires_grad))
        return functional.dropout(inputs * self.gain.sum(dim=0), 0.5, self.training)
