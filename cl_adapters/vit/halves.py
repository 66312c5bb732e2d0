"""A network whose first half has one low-rank update for all and whose second one for each.

What the first half makes of an image is computed once, however many second halves follow it.

Reference: Jiangpeng He, Zhihao Duan, Fengqing Zhu, "CL-LoRA: Continual Low-Rank Adaptation for
Rehearsal-Free Class-Incremental Learning", CVPR 2025, arXiv:2505.24816.

Shapes: B images, N tokens, D width, L blocks, R rank, T stored second halves.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.errors import InputError
from cl_adapters.peft.initial import orthonormal_rows
from cl_adapters.peft.low_rank import LowRankBank, LowRankUpdate, rescaled_rows
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["BlockWeights", "Halves"]


class BlockWeights(GrowingBuffers):
    """How much an update counts for queries, keys and values of each block.

    Args:
        blocks: How many blocks.

    Attributes:
        current: Of the update in training, (3, blocks).
        frozen: Of those before, (T, 3, blocks).
    """

    grows_by_learning = True

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.current = nn.Parameter(torch.ones(3, blocks))
        self.register_buffer("frozen", torch.zeros(0, 3, blocks))
        self.frozen: Tensor

    def factors(self) -> Tensor:
        """Returns those of queries and values, (blocks, 2)."""
        return self.current[[0, 2]].T

    @torch.no_grad()
    def freeze(self) -> None:
        """Keeps a copy of the current ones."""
        self.frozen = torch.cat((self.frozen, self.current[None]))

    def likeness(self) -> Tensor:
        """Returns the mean of |cos| to each of those before, a scalar; 0 where there are none."""
        if len(self.frozen) == 0:
            return self.current.new_zeros(())
        now = self.current.flatten()[None]
        return nn.functional.cosine_similarity(self.frozen.flatten(1), now).abs().mean()


class Halves(nn.Module):
    """The updates of queries and values in both halves; the network itself is given.

    Args:
        backbone: The network; nothing of it is kept.
        rank: R.

    Attributes:
        shared: Of the first half, L // 2 blocks; only ever one.
        specific: Of the second half, those that are stored with their weights merged in.
        weights: Of the blocks of the second half.

    Raises:
        InputError: If the network has a single block, or the rank is above its width.
    """

    def __init__(self, backbone: AdaptedViT, rank: int) -> None:
        super().__init__()
        blocks, size = backbone.num_blocks, backbone.embed_dim
        if blocks < 2:
            raise InputError(f"a network with two halves must have at least 2 blocks, got {blocks}")
        if rank > size:  # rows of A are orthonormal
            raise InputError(f"`rank` must be at most the network's width, {size}, got {rank}")
        self.middle = blocks // 2
        self.shared = LowRankBank(size, range(self.middle), rank, ("query", "value"))
        self.specific = LowRankBank(size, range(self.middle, blocks), rank, ("query", "value"))
        self.weights = BlockWeights(blocks - self.middle)

    @torch.no_grad()
    def begin(self, generator: torch.Generator, *, is_first: bool) -> None:
        """Draws a new second half, with weights uniform in 0.5 to 1.5; the first one only once.

        Args:
            generator: Source of all draws.
            is_first: Draw the first half too; else its A is no longer trained.
        """
        for bank in (self.shared, self.specific) if is_first else (self.specific,):
            *places, rows, size = bank.down.shape
            drawn = [orthonormal_rows(rows, size, generator) for _ in range(places[0] * places[1])]
            bank.renew(torch.stack(drawn).reshape(bank.down.shape))
        weights = torch.rand(self.weights.current.shape, generator=generator)
        self.weights.current.copy_(0.5 + weights)
        self.shared.down.requires_grad = is_first

    def freeze(self) -> None:
        """Stores a copy of the second half and of its weights."""
        self.specific.freeze(self.weights.factors().detach())
        self.weights.freeze()

    def first(self, backbone: AdaptedViT, images: Tensor) -> Tensor:
        """Returns the tokens that leave the first half, (B, N, D), of images (B, 3, S, S)."""
        return self._first(backbone, images, self.shared.current())

    def second(self, backbone: AdaptedViT, tokens: Tensor, number: int | None = None) -> Tensor:
        """Returns the features (B, D) of tokens that left the first half.

        Args:
            backbone: The network.
            tokens: (B, N, D).
            number: Of a stored second half; None takes the one in training.
        """
        if number is None:
            update = self.specific.current().scaled(self.weights.factors())
        else:
            update = self.specific.frozen(number)
        return backbone.features(backbone.run(tokens, self.middle, adapters=update.adapters()))

    def all_features(self, backbone: AdaptedViT, images: Tensor) -> Tensor:
        """Returns the features of images (B, 3, S, S) under each stored second half, (B, T, D)."""
        tokens = self.first(backbone, images)
        found = [self.second(backbone, tokens, each) for each in range(len(self.specific))]
        return torch.stack(found, dim=1)

    def half_features(
        self, backbone: AdaptedViT, images: Tensor, previous: Tensor, *, rescale: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns the normed class tokens of the first half, now and as it was: (B, D) each.

        Args:
            backbone: The network.
            images: (B, 3, S, S).
            previous: B of the first half as it was, (L // 2, 2, D, R).
            rescale: Let gradients count in rows of B as these were long in the previous one.
        """
        current = self.shared.current()
        up = rescaled_rows(current.up, previous) if rescale else current.up
        now = self._first(backbone, images, replace(current, up=up))
        with torch.no_grad():
            before = self._first(backbone, images, replace(current, up=previous))
            teacher = backbone.features(before)
        return backbone.features(now), teacher

    def _first(self, backbone: AdaptedViT, images: Tensor, update: LowRankUpdate) -> Tensor:
        return backbone.run(backbone.tokens(images), 0, self.middle, adapters=update.adapters())
