"""Features that stay as they are for a while, and how a strategy makes and keeps them.

A frozen part of a network turns an image into features: tokens, means of tokens, the network's own.
Where the images are the same at each use, they are computed once (`core/feature_cache.py`).
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.bank import AdapterBank
from cl_adapters.strategies.core.avalanche_types import AvalancheDataset
from cl_adapters.strategies.core.extractors import (
    PROBES,
    AdapterFeatureExtractor,
    FeatureExtractor,
    extractor_digest,
)
from cl_adapters.strategies.core.feature_cache import CachedFeatures
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["AdapterFeatureExtractor", "FeatureExtractor", "Features"]

_PLAIN_BATCH: Final = 64
_BITS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Features:
    """Makes feature extractors of one backbone and keeps what they compute.

    Args:
        backbone: The frozen network.
        device: Where it computes.
        half: Compute in bfloat16 under autocast.
        cache: Where features are kept on disk; None keeps none.
    """

    def __init__(
        self, backbone: AdaptedViT, device: torch.device, *, half: bool, cache: FeatureCache | None
    ) -> None:
        self.backbone, self._device, self._half = backbone, device, half
        self.cache = cache
        self._set_digests: list[str] = []
        # Of the backbone alone, which stays as it is unless somebody writes into its weights.
        self._known: tuple[object, tuple[str, int, int]] | None = None

    def autocast(self) -> torch.autocast:
        """Returns the context that computes in the strategy's precision."""
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._half)

    def under(self, adapters: AdapterSet) -> Callable[[Tensor], Tensor]:
        """Returns what computes features (B, D) of images (B, 3, S, S) under adapters, in float32.

        Args:
            adapters: As they are at the time of each call.
        """

        def compute(images: Tensor) -> Tensor:
            with self.autocast():
                found: Tensor = self.backbone(images, adapters)
            return found.float()

        return compute

    def feature_extractor(
        self, compute: Callable[[Tensor], Tensor], *modules: nn.Module
    ) -> FeatureExtractor:
        """Returns a frozen part of the model.

        Args:
            compute: From images (B, C, S, S) on the device to features (B, ...).
            *modules: All that it computes with; none for features that are not to be kept on disk.
        """

        def rows(images: Tensor) -> Tensor:
            with self.autocast():
                return compute(self.backbone.inputs(images, self._device))

        if self.cache is None or not modules:
            return FeatureExtractor(rows, device=self._device)
        weights = [value for module in modules for value in module.state_dict().values()]
        is_backbone = modules == (self.backbone,)
        key = (compute, _fingerprint(weights)) if is_backbone else None
        if self._known is not None and key is not None and self._known[0] == key:
            namespace, size, asked = self._known[1]
        else:
            passes = self.backbone.num_passes  # the digest's own are no pass of an image
            namespace, size = extractor_digest(rows, weights, self.backbone.input_shape)
            asked = (self.backbone.num_passes - passes) // PROBES  # passes an image
            self.backbone.num_passes = passes
        if is_backbone:
            self._known = key, (namespace, size, asked)
        # What a cache answers stands for passes: they are the method's, whoever computed them.
        answered = partial(_count, self.backbone, asked)
        return FeatureExtractor(rows, namespace, self._device, size, answered)

    def adapter_feature_extractor(
        self, bank: AdapterBank, *, settled: int | None = None
    ) -> AdapterFeatureExtractor:
        """Returns the network under the adapter sets of a bank.

        Args:
            bank: The sets.
            settled: How many of them, from the first on, will stay as they are, whatever follows;
                None for all.
        """

        def rows(images: Tensor, sets: Tensor) -> Tensor:
            chosen = bank.choose(sets.to(self._device, non_blocking=True))
            with self.autocast():
                found: Tensor = self.backbone(self.backbone.inputs(images, self._device), chosen)
            return found

        passes = self.backbone.num_passes
        digests = list(self._set_digests)
        for number in range(len(digests), len(bank)):
            shown = partial(_under_one, rows, number)
            shape = self.backbone.input_shape
            digests.append(extractor_digest(shown, bank.at(number), shape)[0])
        self._set_digests = digests[:settled]
        self.backbone.num_passes = passes
        namespace = self.feature_extractor(self.backbone, self.backbone).namespace
        sets = tuple(digests)
        return AdapterFeatureExtractor(
            rows, namespace, sets, self._device, self.backbone.count_passes
        )

    def cached_features(
        self, dataset: AvalancheDataset, extractor: FeatureExtractor
    ) -> CachedFeatures:
        """Returns the features of a dataset without augmentation, from the cache where it can.

        Args:
            dataset: The images.
            extractor: What computes the features.
        """
        return CachedFeatures(dataset.eval(), extractor, same=True, keep=False, cache=self.cache)

    def plain_images(
        self, dataset: AvalancheDataset, batch_size: int = _PLAIN_BATCH
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields images on the device, not augmented and in order, and labels (B,)."""
        return self.images(dataset.eval(), batch_size)

    def images(
        self,
        shown: Any,  # noqa: ANN401 - a dataset
        batch_size: int = _PLAIN_BATCH,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the images of a dataset as it shows them, on the device and in order, and labels.

        Args:
            shown: The dataset.
            batch_size: B.

        Shape:
            Output: (B, 3, S, S) and (B,) each.
        """
        # A loader draws a number for its workers: from a generator of its own, not torch's global.
        yield from self._batches(
            DataLoader(shown, batch_size=batch_size, generator=torch.Generator())
        )

    def shuffled_images(
        self, dataset: AvalancheDataset, generator: torch.Generator, batch_size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields images on the device, augmented as in training and shuffled, and labels (B,).

        Args:
            dataset: The images.
            generator: Source of their order, on the CPU.
            batch_size: B.
        """
        shown: Any = dataset.train()
        yield from self._batches(
            DataLoader(shown, batch_size=batch_size, shuffle=True, generator=generator)
        )

    def _batches(self, loader: Any) -> Iterator[tuple[Tensor, Tensor]]:  # noqa: ANN401 - torch's
        for images, labels, *_ in loader:
            yield self.backbone.inputs(images, self._device), labels.to(self._device).long()


def _count(backbone: AdaptedViT, passes: int, images: int) -> None:
    """Counts the passes of each image: none where the features come before the network's end."""
    backbone.count_passes(passes * images)


def _under_one(compute: Callable[[Tensor, Tensor], Tensor], part: int, images: Tensor) -> Tensor:
    return compute(images, torch.full((len(images),), part))


def _fingerprint(weights: Iterable[Tensor]) -> tuple[float, ...]:
    # Where they are: far cheaper than a digest. All bits added up tell the smallest change, but not
    # who changed places; weighted sums do.
    values = [value.detach() for value in weights]
    bits = torch.stack([_bit_sum(each) for each in values])
    sums = torch.stack([_weighted_sum(each) for each in values])
    return (*bits.tolist(), *sums.tolist())


def _bit_sum(value: Tensor) -> Tensor:
    # Modulo 2 ** 64. Eight bytes at a time where they fit, which is twenty times as fast.
    flat = value.reshape(-1).contiguous()
    place = flat.storage_offset() * flat.itemsize
    fits = (flat.numel() * flat.itemsize) % 8 == 0 and place % 8 == 0
    kind = torch.int64 if fits else _BITS[flat.itemsize]
    return flat.view(kind).sum(dtype=torch.int64)


def _weighted_sum(value: Tensor) -> Tensor:
    # Each place has a weight of its own.
    rows = value.reshape(len(value), -1) if value.ndim > 1 else value.reshape(1, -1)
    down, across = (
        torch.cos(torch.arange(1.0, size + 1, device=value.device)) for size in rows.shape
    )
    return down @ (rows.float() @ across)
