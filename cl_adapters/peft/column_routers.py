"""Routers of linear columns, one an adapter, that are trained with it and then frozen.

    w = softmax(a_1(m), ..., a_K(m))          a_k(m) = v_k' m + c_k

of SEMA; with a column more for none of the adapters, which is trained with the first, their sum may
be less than 1. A first column alone has no gradient, since a softmax over one is constant, and
later columns see new data only.

References: Huiyi Wang, Haodong Lu, Lina Yao, Dong Gong, "Self-Expansion of Pre-trained Models with
Mixture of Adapters for Continual Learning", CVPR 2025, arXiv:2403.18886; the column for none,
Shizhe Diao and others, "Mixture-of-Domain-Adapters", ACL 2023, whose gate also scales the frozen
layer, so that it does not begin as the frozen network.

Shapes: B batch, D width of the stream, K adapters.
"""

import math

import torch
from torch import Tensor, nn

from cl_adapters.peft.router import ScoreRouter

__all__ = ["LearnedNullRouter", "LearnedRouter"]


class LearnedRouter(ScoreRouter):
    """A linear column an adapter, trained with it (SEMA)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        self.columns = nn.ModuleList()

    def add_adapter(self, generator: torch.Generator) -> None:
        """Adds a column with random weights."""
        self.columns.append(self._column(generator))

    def _column(self, generator: torch.Generator | None) -> nn.Linear:
        # Of zeros without a generator.
        column = nn.Linear(self.embed_dim, 1, device="meta").to_empty(device="cpu")
        bound = 1 / math.sqrt(self.embed_dim)
        for value in (column.weight, column.bias):
            if generator is None:
                nn.init.zeros_(value)
            else:
                nn.init.uniform_(value, -bound, bound, generator=generator)
        return column

    def newest_parameters(self) -> list[nn.Parameter]:
        """Returns the newest column."""
        return list(self.columns[-1:].parameters())

    def cost(self) -> int:
        """Returns the numbers of a column."""
        return sum(value.numel() for value in self.columns[-1:].parameters())

    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        """Returns what the columns say, (B, K)."""
        del count
        return self._joined(mean_tokens, [*self.columns])

    def _joined(self, mean_tokens: Tensor, columns: list[nn.Module]) -> Tensor:
        # A first column alone gets gradients of zero, and so decays, as the authors' does.
        return torch.cat([column(mean_tokens) for column in columns], dim=1)


class LearnedNullRouter(LearnedRouter):
    """A linear column an adapter, and one for no adapter at all (after MixDA)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        self.nothing = self._column(None)

    def newest_parameters(self) -> list[nn.Parameter]:
        """Returns the newest column, and with the first that for no adapter."""
        found = super().newest_parameters()
        return [*found, *self.nothing.parameters()] if len(self.columns) == 1 else found

    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        """Returns what the columns say, (B, K + 1)."""
        del count
        return self._joined(mean_tokens, [*self.columns, self.nothing])
