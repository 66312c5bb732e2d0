"""What SEMA's algorithm stands on: a network whose blocks can grow, and an experience as tokens.

The blocks before the first one that can grow never change after the first experience. So the
tokens that enter that block are computed once an experience, or kept on disk, and whatever scans,
trains or describes reads them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.heads.by_path import PathClassifiers
from cl_adapters.strategies.core.avalanche_types import AvalancheDataset
from cl_adapters.strategies.core.feature_cache import CachedFeatures
from cl_adapters.strategies.core.features import FeatureExtractor
from cl_adapters.strategies.core.growing import GrowingStrategy
from cl_adapters.strategies.core.paths import SEMAModel
from cl_adapters.strategies.core.samplers import ResumableIndexSampler
from cl_adapters.strategies.core.tokens import ExperienceTokens

__all__ = ["ExpandingStrategy"]


class ExpandingStrategy(GrowingStrategy):
    """Holds an expandable network, and shows it an experience.

    Attributes:
        tokens: Those of the current experience that enter the first expandable block.
    """

    model: SEMAModel
    config: Any
    tokens: ExperienceTokens

    def rebuild(self, state: Mapping[str, Tensor]) -> None:
        """Adds the adapters that a checkpoint holds, and the paths."""
        super().rebuild(state)
        for block in self.model.expandable:
            while len(self.model.slot(block)) < self.model.adapters_held(state, block):
                self.grow_block(block)
        if isinstance(self.model.classes, PathClassifiers):
            self.model.classes.rebuild(state, "classes")

    def grow_block(self, block: int) -> None:
        """Adds an adapter, its column of the router and its detector."""
        slot = self.model.slot(block)
        slot.add_adapter(self.generator(f"adapter {block}"))
        slot.to(self.device)
        if self.regimes is not None:
            return
        seed = self.seed * 1_000_003 + block * 1009 + len(slot) - 1
        detector = self.config.make_detector(self.backbone.embed_dim, seed)
        self.model.detectors.append(block, detector.to(self.device))

    def check_experience(self, dataset: AvalancheDataset) -> None:
        """Refuses an experience that is too small for the detectors."""
        if self.regimes is not None:
            super().check_experience(dataset)
            return
        needed = self.model.detectors.newest(self.model.expandable[0]).min_samples
        if len(dataset) < needed:
            raise InputError(
                f"an experience must hold at least {needed} training images for detector "
                f"{self.config.detector!r}, got {len(dataset)}"
            )

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Adds rows to the head for classes that have none."""
        known = self.config.num_classes
        self.model.heads.add_classes(range(known) if known else classes, generator)
        self.model.add_classes(classes)

    def open_tokens(self) -> None:
        """Computes the tokens that enter the first expandable block, of all images at hand.

        From the second experience on the blocks before are frozen, and training reads the tokens.
        """
        is_first = len(self.classes_by_experience) == 1
        cached = CachedFeatures(
            self.adapted_dataset,
            self._prefix(is_frozen=not is_first),
            same=self.augmentation.fixed_views,
            megabytes=self.config.cache_megabytes,
            cache=self.cache,
        )
        asked = self.model, self.features, self.set_augmentation_seed
        self.tokens = ExperienceTokens(cached, *asked)
        if not is_first:
            with self.events.timed("frozen", len(cached)):
                cached.prepare()
            order = ResumableIndexSampler(len(cached), self.train_mb_size, self.generator("order"))
            self.train_on_features(cached, order)

    def freeze(self) -> None:
        """Lets nothing be trained, until a phase says what."""
        self.model.requires_grad_(requires_grad=False)
        self.model.note_learning()
        self.set_modes()

    def plain_tokens(self) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """Yields the experience without augmentation: tokens, frozen features if asked, labels."""
        again, dataset = self.features.cached_features, self.experience.dataset
        is_plain = self.augmentation.fixed_views is True
        plain = self.tokens.cached if is_plain else again(dataset, self._prefix(is_frozen=True))
        frozen = self._frozen_network()
        if frozen is None:
            yield from ((tokens, None, targets) for tokens, targets in plain.batches())
            return
        is_seen = is_plain and self.regimes is not None
        queries = self.watched if is_seen else again(dataset, frozen)
        for (tokens, targets), (query, _) in zip(plain.batches(), queries.batches(), strict=True):
            yield tokens, query, targets

    def route(self, blocks: Sequence[int]) -> None:
        """Tells the routers that ask that the experience is of their block's adapter."""
        asking = [block for block in blocks if self.model.slot(block).router.asks()]
        if not asking:
            return
        for block, mean_tokens in self.tokens.mean_tokens(asking, "route").items():
            adapter = self.model.active_adapter(block)
            self.model.slot(block).update_router(mean_tokens, adapter)

    def numbers_of_classes(self, classes: int) -> int:
        """Returns what so many classes add to a path's classifier, in numbers."""
        return self.model.path_numbers(classes) - self.model.path_numbers(0)

    def query_features(self) -> FeatureExtractor | None:
        """Returns the frozen network, where answers need its features."""
        return None if self.model.training else self._frozen_network()

    def frozen_features(self) -> FeatureExtractor | None:
        """Returns the blocks before the first expandable one, frozen after the first experience."""
        return self._prefix(is_frozen=True) if self.model.expandable[0] else None

    def _frozen_network(self) -> FeatureExtractor | None:
        if not self.config.asks_frozen:
            return None
        return self.features.feature_extractor(self.backbone, self.backbone)

    def _prefix(self, *, is_frozen: bool) -> FeatureExtractor:
        # Tokens are kept on disk where they stay as they are and more than a patch was embedded.
        is_kept = is_frozen and self.model.expandable[0] > 0
        modules = self.model.prefix_modules() if is_kept else []
        return self.features.feature_extractor(self.model.prefix, *modules)
