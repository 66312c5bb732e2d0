"""Which batches a strategy trains and evaluates on: images, frozen features, or indices of images.

Whatever the batches hold, images come in the same order, and sources of randomness draw the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.strategies.core.avalanche_types import AvalancheDataset
from cl_adapters.strategies.core.extractors import AdapterFeatureExtractor, FeatureExtractor
from cl_adapters.strategies.core.feature_cache import CachedAdapterFeatures, CachedFeatures
from cl_adapters.strategies.core.loaders import (
    Group,
    IndexBatches,
    MadeBatches,
    label_tensors,
    reader_of,
)
from cl_adapters.strategies.core.samplers import ResumableBatchSampler
from cl_adapters.strategies.core.views import Augmentation, Views

__all__ = ["BatchMaker", "Batches", "Frozen"]


@dataclass(frozen=True)
class Frozen:
    """What of a model is frozen, as its method says; None where nothing is, or nothing is kept.

    Attributes:
        features: From images on; the model takes them in place of images.
        adapters: Under one of several sets; the model asks for them image by image.
        query: What the model takes beside images.
    """

    features: FeatureExtractor | None = None
    adapters: AdapterFeatureExtractor | None = None
    query: FeatureExtractor | None = None


@dataclass(frozen=True)
class Batches:
    """What a loop goes through.

    Attributes:
        loader: The minibatches; None leaves them to Avalanche.
        answered: Where it holds indices of images: what these lead to.
        queries: Where it holds indices beside images: the queries of these.
    """

    loader: Any
    answered: CachedAdapterFeatures | None = None
    queries: CachedFeatures | None = None


class BatchMaker:
    """Makes the batches of one strategy.

    Args:
        device: Where they are used.
        augmentation: What training shows.
        cache: Where features are kept on disk; None keeps none.
    """

    def __init__(
        self, device: torch.device, augmentation: Augmentation, cache: FeatureCache | None
    ) -> None:
        self._pinned = device.type == "cuda"
        self._augmentation, self._cache = augmentation, cache

    def training(
        self,
        dataset: AvalancheDataset,
        order: ResumableBatchSampler,
        *,
        group: Group,
        num_workers: int,
        query: FeatureExtractor | None = None,
    ) -> Batches:
        """Returns batches of images in a drawn order.

        Args:
            dataset: What is trained on.
            order: The order.
            group: How the dataset shows its images.
            num_workers: Processes that read; with any, torch's own loader reads.
            query: What the model takes beside images.
        """
        shown = self._augmentation
        is_told = shown.views is not None or shown.fixed_views is True
        read = reader_of(dataset, group) if is_told and not num_workers else None
        if read is None:
            whole: Any = dataset
            return Batches(
                DataLoader(
                    whole,
                    batch_sampler=order,
                    generator=order.generator,
                    num_workers=num_workers,
                    pin_memory=self._pinned,
                )
            )
        queries = self._queries(dataset, query, shown.fixed_views)
        return Batches(
            self._images(IndexBatches(order), read, dataset, queries=queries), queries=queries
        )

    def evaluation(
        self, dataset: AvalancheDataset, size: int, frozen: Frozen, num_workers: int
    ) -> Batches:
        """Returns batches of frozen features or indices where these are kept, else of images.

        Args:
            dataset: What is evaluated, shown by the group `eval`.
            size: Images a batch.
            frozen: What of the model is frozen.
            num_workers: Processes that read; with any, Avalanche's loader reads.
        """
        parts = torch.split(torch.arange(len(dataset)), size) if len(dataset) else ()
        if frozen.adapters is not None and self._cache is not None:
            answered = CachedAdapterFeatures(dataset, frozen.adapters, self._cache)
            if answered.is_kept:
                return Batches(MadeBatches(parts, _same, label_tensors(dataset)), answered=answered)
        if frozen.features is not None:
            rows = CachedFeatures(
                dataset, frozen.features, same=True, keep=False, cache=self._cache
            )
            queries = self._queries(dataset, frozen.query, same=True) if rows.is_kept else None
            if rows.is_kept and (frozen.query is None or queries is not None):
                return Batches(
                    rows.minibatches(parts, numbered=queries is not None), queries=queries
                )
        read = None if num_workers else reader_of(dataset, "eval")
        if read is None:
            return Batches(None)
        queries = self._queries(dataset, frozen.query, same=True)
        return Batches(self._images(parts, read, dataset, queries=queries), queries=queries)

    def _images(
        self,
        orders: Iterable[Tensor],
        read: Any,  # noqa: ANN401 - from indices to images
        dataset: AvalancheDataset,
        *,
        queries: CachedFeatures | None,
    ) -> MadeBatches:
        labels, numbered = label_tensors(dataset), queries is not None
        return MadeBatches(orders, read, labels, numbered=numbered, pinned=self._pinned)

    def _queries(
        self,
        dataset: AvalancheDataset,
        query: FeatureExtractor | None,
        same: bool | Views,  # noqa: FBT001 - one thing
    ) -> CachedFeatures | None:
        if query is None:
            return None
        rows = CachedFeatures(dataset, query, same=same, cache=self._cache)
        rows.prepare()
        return rows if rows.is_kept else None


def _same(part: Tensor) -> Tensor:
    return part
