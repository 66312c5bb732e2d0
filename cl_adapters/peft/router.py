"""What all routers of a slot have in common: how much of each adapter an image takes.

A slot (`routing.py`) asks its router with m, the mean token that enters it. A router is no module:
those that it keeps are attributes, which the slot holds beside its adapters, so that they are part
of its state. A plug-in derives from `ScoreRouter` and has `add_adapter` and `scores` at least, or
from `Router`, and has `add_adapter` and `route`.

Shapes: B batch, N tokens, D width of the stream, K adapters.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from cl_adapters.peft.mixing import Output, mix_outputs

__all__ = ["Router", "ScoreRouter"]


class Router(ABC):
    """Says how much of each adapter of a slot an image takes.

    Args:
        embed_dim: D.

    Attributes:
        knows_experiences: Whether it keeps something of each experience, and so learns in one even
            where nothing grows.
        shares_blocks: Whether its weights are those of all blocks, which then grow together.
        options: Names of what its class takes besides.
    """

    knows_experiences: ClassVar[bool] = False
    shares_blocks: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, embed_dim: int) -> None:
        self.embed_dim = embed_dim

    def parts(self) -> dict[str, nn.Module]:
        """Returns the modules that it keeps, by the names that they have in the slot's state."""
        return {name: part for name, part in vars(self).items() if isinstance(part, nn.Module)}

    def check_kind(self, make: Callable[[torch.Generator], nn.Module]) -> None:
        """Refuses a kind of adapter that it cannot mix.

        Args:
            make: Builds an adapter.

        Raises:
            InputError: If it cannot.
        """
        del make

    def share(self, first: Self) -> None:
        """Takes the weights of the first block's router, where all blocks share them."""
        del first

    @abstractmethod
    def add_adapter(self, generator: torch.Generator) -> None:
        """Makes room for one adapter more.

        Args:
            generator: Source of initial weights.
        """

    def begin_experience(self, generator: torch.Generator) -> None:
        """Makes room for an experience after the first, where it keeps something of each."""
        del generator

    def asks(self) -> bool:
        """Says whether it wants to be told of the images of the current experience."""
        return False

    def update(self, mean_tokens: Tensor, adapter: int) -> None:
        """Tells it that images of the current experience belong to an adapter.

        Shape:
            mean_tokens: (B, D).
        """
        del mean_tokens, adapter

    def newest_parameters(self) -> list[nn.Parameter]:
        """Returns what is trained with the newest adapter, or in the newest experience."""
        return []

    def cost(self) -> int:
        """Returns how many numbers one more adapter adds."""
        return 0

    @abstractmethod
    def route(
        self, mean_tokens: Tensor, count: int, left_out: Collection[int] = frozenset()
    ) -> Tensor:
        """Returns how much of each adapter an image takes, as `mix` wants it.

        Args:
            mean_tokens: (B, D).
            count: K.
            left_out: Adapters that no image may use.

        Shape:
            Output: (B, K), unless `mix` and `shares` take another.
        """

    def shares(self, portions: Tensor) -> Tensor:
        """Returns what `route` gave as a share in [0, 1] of each adapter, (B, K)."""
        return portions

    def mix(self, adapters: Sequence[nn.Module], tokens: Tensor, portions: Tensor) -> Output:
        """Returns the adapters' joint output.

        Args:
            adapters: The K adapters.
            tokens: (B, N, D).
            portions: What `route` gave.

        Shape:
            Output: (B, N, D), or two of them where an adapter gives two.
        """
        return mix_outputs(adapters, tokens, portions)


class ScoreRouter(Router):
    """Gives each adapter a score, whose softmax is its weight."""

    @abstractmethod
    def scores(self, mean_tokens: Tensor, count: int) -> Tensor:
        """Returns a score of each adapter, and of what else is a choice.

        Args:
            mean_tokens: (B, D).
            count: K.

        Shape:
            Output: (B, K), or more columns.
        """

    def weights(self, scores: Tensor, count: int) -> Tensor:
        """Returns the weight of each adapter, (B, K): by default a softmax over all scores."""
        return scores.softmax(dim=1)[:, :count]

    def route(
        self, mean_tokens: Tensor, count: int, left_out: Collection[int] = frozenset()
    ) -> Tensor:
        """Returns the weight of each adapter, (B, K)."""
        scores = self.scores(mean_tokens, count)
        if left_out:
            if len(left_out) == count:
                return torch.zeros_like(scores[:, :count])
            places = torch.tensor(sorted(left_out), device=scores.device)
            scores = scores.index_fill(1, places, float("-inf"))
        return self.weights(scores, count)
