"""An experience as frozen features, and as the tokens that enter the first expandable block."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from cl_adapters.peft.routing import SlotRecord
from cl_adapters.strategies.core.feature_cache import CachedFeatures
from cl_adapters.strategies.core.features import Features
from cl_adapters.vit.expandable import ExpandableViT

__all__ = ["ExperienceFeatures", "ExperienceTokens"]


class ExperienceFeatures:
    """Frozen features of an experience's images, in the views that a moment of it shows.

    Args:
        cached: The features.
        set_augmentation_seed: Draws, for a moment of the experience, which views images show.
    """

    def __init__(
        self, cached: CachedFeatures, set_augmentation_seed: Callable[[str], None]
    ) -> None:
        self.cached = cached
        self._set_augmentation_seed = set_augmentation_seed

    def __len__(self) -> int:
        return len(self.cached)

    def windows(
        self, size: int, generator: torch.Generator, moment: str, *, merge_last: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the features of windows of shuffled images, (n, ...), and their labels (n,).

        Args:
            size: Images a window.
            generator: Source of the order.
            moment: Whose views to show; drawn for each window, since training may come between.
            merge_last: Let a last, smaller window join the one before.
        """
        for part in self.cached.shuffled(size, generator, merge_last=merge_last):
            self._set_augmentation_seed(moment)
            yield self.cached.rows(part), self.cached.targets[part]

    def batches(self, moment: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the features of images in order, (B, ...), and their labels (B,).

        Args:
            moment: Whose views to show.
        """
        self._set_augmentation_seed(moment)
        yield from self.cached.batches()

    def all(self, moment: str) -> Tensor:
        """Returns the features of all images, (M, ...).

        Args:
            moment: Whose views to show.
        """
        self._set_augmentation_seed(moment)
        return torch.cat([rows.float() for rows, _ in self.cached.batches()])


class ExperienceTokens(ExperienceFeatures):
    """The tokens of an experience's images, and what routers and detectors read off them.

    Args:
        cached: The tokens (N, D) of each image, frozen for the experience.
        model: What follows them.
        features: What computes in the strategy's precision.
        set_augmentation_seed: Draws, for a moment of the experience, which views images show.
    """

    def __init__(
        self,
        cached: CachedFeatures,
        model: ExpandableViT,
        features: Features,
        set_augmentation_seed: Callable[[str], None],
    ) -> None:
        super().__init__(cached, set_augmentation_seed)
        self._model, self._features = model, features

    @torch.no_grad()
    def mean_tokens(self, blocks: Sequence[int], moment: str) -> dict[int, Tensor]:
        """Returns what each block's router and detectors see of all images, (M, D) each.

        Args:
            blocks: Expandable blocks.
            moment: Whose views to show.
        """
        self._set_augmentation_seed(moment)
        was_training = self._model.training
        self._model.eval()  # whatever reads the means must not see noise of a module that draws
        means: dict[int, list[Tensor]] = {block: [] for block in blocks}
        start, stop = self._model.expandable[0], max(blocks) + 1
        for tokens, _ in self.cached.batches():
            record: dict[int, SlotRecord] = {}
            with self._features.autocast():
                self._model.forward_blocks(tokens, start, stop, record=record)
            for block in blocks:
                means[block].append(record[block].mean_tokens.float())
        self._model.train(was_training)
        return {block: torch.cat(rows) for block, rows in means.items()}
