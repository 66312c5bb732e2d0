"""The images of a dataset as the features that a frozen part of the network makes of them.

Where the images are the same at each use, their features are computed once: kept in memory for as
long as the experience lasts, and on disk for later experiences and other runs where there is a
cache. Where each use shows one of K fixed views, there are up to K rows of features an image,
computed when they are first asked for. Otherwise they are computed at each use, without gradients.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import torch
from torch import Tensor

from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.finiteness import refuse_not_finite
from cl_adapters.strategies.core.avalanche_types import AvalancheDataset
from cl_adapters.strategies.core.extractors import AdapterFeatureExtractor, FeatureExtractor
from cl_adapters.strategies.core.loaders import (
    Group,
    MadeBatches,
    label_tensors,
    read_images,
    reader_of,
)
from cl_adapters.strategies.core.views import FixedViews, Views

__all__ = ["CachedAdapterFeatures", "CachedFeatures"]

_BATCH: Final = 64  # images a pass when the order does not matter
# Share of a cache that one dataset may take: read in turn, what does not fit would never be met.
_SHARE: Final = 0.25


class CachedFeatures:
    """Features (N, ...) of the N images of a dataset.

    Args:
        dataset: Avalanche's dataset of the experience. Its attribute `pixel_keys`, where it has
            one, says which images are equal as its group `eval` shows them.
        extractor: What computes the features.
        same: Whether the images are those of the group `eval` at each use; or what says which of
            some fixed views they show.
        keep: Whether features may be kept in memory.
        megabytes: Most memory for what is kept.
        cache: Where features are kept on disk; None keeps none.
    """

    def __init__(
        self,
        dataset: AvalancheDataset,
        extractor: FeatureExtractor,
        *,
        same: bool | Views,
        keep: bool = True,
        megabytes: float = 1024,
        cache: FeatureCache | None = None,
    ) -> None:
        self._extractor = extractor
        self._views = views = same if isinstance(same, FixedViews) else None
        self._keys: list[bytes] = list(getattr(dataset, "pixel_keys", ()))
        # Without keys nothing says which view an image shows.
        comes_again = same is True or (views is not None and bool(self._keys))
        group: Group = "eval" if same is True else "train"
        self._read = (reader_of(dataset, group) if comes_again else None) or read_images(dataset)
        self._keep = comes_again and keep
        self._limit = megabytes * 2**20
        self._kept: Tensor | None = None  # (K N, ...), the first view of each image first
        self._is_known = torch.zeros(0, dtype=torch.bool)
        self._cache = cache if comes_again and extractor.namespace else None
        count = len(dataset) * (views.count if views else 1)
        if cache is not None and extractor.row_bytes * count > _SHARE * cache.limit:
            self._cache = None
        if self._cache is not None and not _is_as_known(dataset, self._cache, views):
            self._cache = None
        self.targets, self._tasks = label_tensors(dataset)

    def __len__(self) -> int:
        return len(self.targets)

    def shuffled(
        self, size: int, generator: torch.Generator, *, merge_last: bool = False
    ) -> list[Tensor]:
        """Returns the images' indices, shuffled and cut into parts.

        Args:
            size: Images a part.
            generator: Source of the order.
            merge_last: Let a last, smaller part join the one before.
        """
        parts = list(torch.split(torch.randperm(len(self), generator=generator), size))
        if merge_last and len(parts) > 1 and len(parts[-1]) < size:
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts

    def in_order(self, size: int = _BATCH) -> list[Tensor]:
        """Returns the images' indices, cut into parts."""
        return list(torch.split(torch.arange(len(self)), size))

    def batches(self, parts: Iterable[Tensor] | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields features and targets.

        Args:
            parts: Indices of each batch; None goes through all images in order.
        """
        for part in self.in_order() if parts is None else parts:
            yield self.rows(part), self.targets[part]

    def rows(self, part: Tensor) -> Tensor:
        """Returns the features of some images.

        Shape:
            part: (B,) indices. Output: (B, ...).
        """
        self.prepare()
        if self._kept is None:
            return self._computed(part)
        places = self._places(part)
        missing = ~self._is_known[places]
        if missing.any():
            self._fill(part[missing], self._computed(part[missing]))
        return self._kept[places]

    def minibatches(
        self, orders: Iterable[Tensor], *, images: bool = False, numbered: bool = False
    ) -> MadeBatches:
        """Returns what Avalanche's loop reads: features or images; targets; task labels.

        Args:
            orders: Gives the parts of an order each time it is gone through.
            images: Read images where features would be computed at each use: what follows the
                frozen part then takes them, in one pass.
            numbered: Give the indices of a batch beside it.
        """
        read = self._read if images and not self.is_kept else self.rows
        return MadeBatches(orders, read, (self.targets, self._tasks), numbered=numbered)

    @property
    def is_kept(self) -> bool:
        """Whether features are kept, on disk or, once `prepare` has run, in memory."""
        return self._cache is not None or self._kept is not None

    def prepare(self) -> None:
        """Computes the features that are kept in memory, unless they are there or do not fit.

        Of several views only those that are asked for.
        """
        if not self._keep or self._kept is not None:
            return
        count = len(self) * (self._views.count if self._views else 1)
        for part in self.in_order():
            rows = self._computed(part)
            if rows[0].nbytes * count > self._limit:
                self._keep = False
                return
            if self._kept is None:
                self._kept = rows.new_empty(count, *rows.shape[1:])
                self._is_known = torch.zeros(count, dtype=torch.bool)
            self._fill(part, rows)
            if self._views is not None:
                return

    @torch.no_grad()
    def _computed(self, part: Tensor) -> Tensor:
        if self._cache is None:
            return self._extractor.compute(self._read(part))
        keys = [self._keys[index] for index in part.tolist()]
        if self._views is not None:
            keys = [self._views.key(key) for key in keys]
        return _ask(
            self._cache,
            self._extractor,
            keys,
            lambda places: self._extractor.compute(self._read(part[torch.tensor(places)])),
        )

    def _fill(self, part: Tensor, rows: Tensor) -> None:
        places = self._places(part)
        if self._kept is not None:
            self._kept[places] = rows
            self._is_known[places] = True

    def _places(self, part: Tensor) -> Tensor:
        if self._views is None:
            return part
        shown = [self._views.shown(self._keys[index]) for index in part.tolist()]
        return part + len(self) * torch.tensor(shown)


class CachedAdapterFeatures:
    """Features of a dataset's images, each under the adapter set that it asks for; kept on disk.

    Args:
        dataset: Avalanche's dataset in the group `eval`, with the attribute `pixel_keys`.
        extractor: What computes the features.
        cache: Where they are kept.
    """

    def __init__(
        self, dataset: AvalancheDataset, extractor: AdapterFeatureExtractor, cache: FeatureCache
    ) -> None:
        self._extractor, self._cache = extractor, cache
        self._keys: list[bytes] = list(getattr(dataset, "pixel_keys", ()))
        self._is_kept = _is_as_known(dataset, cache)
        self._read = reader_of(dataset, "eval") or read_images(dataset)
        self._sets = [each.encode() for each in extractor.sets]

    @torch.no_grad()
    def rows(self, images: Tensor, sets: Tensor) -> Tensor:
        """Returns the features of each image under its set.

        Shape:
            images, sets: (B,) indices. Output: (B, ...).
        """
        images, sets = images.cpu(), sets.cpu()
        pairs = zip(images.tolist(), sets.tolist(), strict=True)
        keys = [hashlib.sha256(self._keys[i] + self._sets[chosen]).digest() for i, chosen in pairs]

        def compute(places: list[int]) -> Tensor:
            wanted = torch.tensor(places)
            return self._extractor.compute(self._read(images[wanted]), sets[wanted])

        return _ask(self._cache, self._extractor, keys, compute)

    @property
    def is_kept(self) -> bool:
        """Whether the dataset says which of its images are equal."""
        return self._is_kept


def _ask(
    cache: FeatureCache,
    extractor: FeatureExtractor | AdapterFeatureExtractor,
    keys: list[bytes],
    compute: Callable[[list[int]], Tensor],
) -> Tensor:
    before = cache.read
    rows = cache.rows(extractor.namespace, keys, compute)
    refuse_not_finite(rows, "features")  # here, where nothing waits for it
    extractor.answered(cache.read - before)
    if extractor.device is None:
        return rows
    rows = rows.pin_memory() if extractor.device.type == "cuda" else rows
    return rows.to(extractor.device, non_blocking=True)


def _is_as_known(
    dataset: AvalancheDataset, cache: FeatureCache, views: FixedViews | None = None
) -> bool:
    """Says whether a dataset has keys of its images and shows the pixels that they stand for.

    Avalanche keeps attributes when a dataset gets other transforms, so the first image is compared
    with what its key stood for when it was first seen.
    """
    keys: list[bytes] = list(getattr(dataset, "pixel_keys", ()))
    if not keys:
        return False
    key = keys[0] if views is None else views.key(keys[0])
    shown: Tensor = dataset[0][0]
    plain = shown.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    digest = hashlib.sha256(plain.numpy().data).digest()
    seen = torch.frombuffer(bytearray(digest), dtype=torch.uint8)[None]
    return torch.equal(cache.get_or_set("pixels", key, seen), seen)
