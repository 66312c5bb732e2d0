"""Routers in closed form, which are told which images each adapter was trained on.

Nothing of them is trained: columns of a discriminant are set from all data at once, where a learned
column sees those of its own adapter alone; memories are sums. One adapter alone takes all.

Shapes: B batch, D width of the stream, K adapters.
"""

import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.peft.memories import SignMemories
from cl_adapters.peft.router import ScoreRouter

__all__ = ["DiscriminantRouter", "MemoryRouter", "PathRouter"]


class PathRouter(ScoreRouter):
    """Keeps nothing: whose adapters an image takes is said with each pass."""

    def add_adapter(self, generator: torch.Generator) -> None:
        """Needs no room."""
        del generator

    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        """Returns 0 of the only adapter, (B, 1).

        Raises:
            InputError: If there are several.
        """
        if count > 1:
            raise InputError("a pass must say which of the adapters each image takes, got none")
        return _alone(mean_tokens)


class DiscriminantRouter(ScoreRouter):
    """Linear discriminant analysis of the mean tokens of each adapter's images."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        self.discriminant = LinearDiscriminant(embed_dim)

    def add_adapter(self, generator: torch.Generator) -> None:
        """Adds an empty group."""
        del generator
        self.discriminant.add_classes([len(self.discriminant.counts)])

    def asks(self) -> bool:
        """Says yes: an adapter may get images of many experiences."""
        return True

    def update(self, mean_tokens: Tensor, adapter: int) -> None:
        """Adds images to an adapter's group."""
        self.discriminant.add(mean_tokens, torch.full((len(mean_tokens),), adapter))

    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        """Returns the log of each group's posterior, (B, K)."""
        found: Tensor = _alone(mean_tokens) if count == 1 else self.discriminant(mean_tokens)
        return found


class MemoryRouter(ScoreRouter):
    """The adapter whose hyperdimensional memory is most similar, alone (after EAR)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        self.memories = SignMemories(embed_dim)

    def add_adapter(self, generator: torch.Generator) -> None:
        """Adds an empty memory."""
        del generator
        self.memories.add_adapter()

    def asks(self) -> bool:
        """Says yes: an adapter may get images of many experiences."""
        return True

    def update(self, mean_tokens: Tensor, adapter: int) -> None:
        """Adds images to an adapter's memory."""
        self.memories.add(mean_tokens, adapter)

    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        """Returns the cosine to each memory, (B, K)."""
        found: Tensor = _alone(mean_tokens) if count == 1 else self.memories(mean_tokens)
        return found

    def weights(self, scores: Tensor, count: int) -> Tensor:
        """Returns 1 for the most similar, and 0 for the others."""
        return functional.one_hot(scores.argmax(dim=1), count).to(scores.dtype)


def _alone(mean_tokens: Tensor) -> Tensor:
    return mean_tokens.new_zeros(mean_tokens.shape[0], 1)
