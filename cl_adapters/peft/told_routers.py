"""Routers in closed form, which are told which images each adapter was trained on.

Nothing of them is trained: columns of a discriminant are set from all data at once, where a learned
column sees those of its own adapter alone; memories are sums.

Shapes: B batch, D width of the stream, K adapters.
"""

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.peft.memories import SignMemories
from cl_adapters.peft.router import Router

__all__ = ["DiscriminantRouter", "MemoryRouter", "PathRouter", "ToldRouter"]


class PathRouter(Router):
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
        return mean_tokens.new_zeros(mean_tokens.shape[0], 1)


class ToldRouter(Router):
    """Asks for the images of every experience; one adapter alone takes all."""

    def asks(self) -> bool:
        """Says yes: an adapter may get images of many experiences."""
        return True

    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        """Returns how much images look like those of each adapter, (B, K)."""
        if count == 1:
            return mean_tokens.new_zeros(mean_tokens.shape[0], 1)
        return self.likeness(mean_tokens)

    @abstractmethod
    def likeness(self, mean_tokens: Tensor) -> Tensor:
        """Returns how much images look like those of each adapter, (B, K), K at least 2."""


class DiscriminantRouter(ToldRouter):
    """Linear discriminant analysis of the mean tokens of each adapter's images."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        self.discriminant = LinearDiscriminant(embed_dim)

    def add_adapter(self, generator: torch.Generator) -> None:
        """Adds an empty group."""
        del generator
        self.discriminant.add_classes([len(self.discriminant.counts)])

    def update(self, mean_tokens: Tensor, adapter: int) -> None:
        """Adds images to an adapter's group."""
        self.discriminant.add(mean_tokens, torch.full((len(mean_tokens),), adapter))

    def likeness(self, mean_tokens: Tensor) -> Tensor:
        """Returns the log of each group's posterior, (B, K)."""
        found: Tensor = self.discriminant(mean_tokens)
        return found


class MemoryRouter(ToldRouter):
    """The adapter whose hyperdimensional memory is most similar, alone (after EAR)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        self.memories = SignMemories(embed_dim)

    def add_adapter(self, generator: torch.Generator) -> None:
        """Adds an empty memory."""
        del generator
        self.memories.add_adapter()

    def update(self, mean_tokens: Tensor, adapter: int) -> None:
        """Adds images to an adapter's memory."""
        self.memories.add(mean_tokens, adapter)

    def likeness(self, mean_tokens: Tensor) -> Tensor:
        """Returns the cosine to each memory, (B, K)."""
        found: Tensor = self.memories(mean_tokens)
        return found

    def weights(self, scores: Tensor, count: int) -> Tensor:
        """Returns 1 for the most similar, and 0 for the others."""
        return functional.one_hot(scores.argmax(dim=1), count).to(scores.dtype)
