"""The images of a dataset as the rows that a frozen part of the network makes of them.

Where the images are the same at each use, their rows are computed once: kept in memory for as long
as the experience lasts, and on disk for later experiences and other runs where there is a cache.
Where each use shows one of K fixed views, there are up to K rows an image, computed when they are
first asked for. Otherwise rows are computed at each use, without gradients.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.strategies.core.views import FixedViews, Views

__all__ = [
    "AdapterFeatureExtractor",
    "Batches",
    "CachedAdapterFeatures",
    "CachedFeatures",
    "FeatureExtractor",
    "extractor_digest",
]

_BATCH = 64  # images a pass when the order does not matter


# Share of a cache that one dataset may take: read in turn, what does not fit would never be met.
_SHARE = 0.25


def _ignore(_: int) -> None:
    pass


@dataclass(frozen=True)
class FeatureExtractor:
    """A part of a network, from images on, that stays as it is for a while.

    Attributes:
        compute: From images (B, 3, S, S) to rows (B, ...), on the network's device.
        space: Digest of all that decides about the rows, the name of their space in a cache; empty
            if they are not to be kept on disk.
        device: Where rows from disk are wanted; None leaves them on the CPU.
        row_bytes: Size of a row on disk.
        answered: Told how many images got their rows without computing.
    """

    compute: Callable[[Tensor], Tensor]
    space: str = ""
    device: torch.device | None = None
    row_bytes: int = 0
    answered: Callable[[int], None] = _ignore


@dataclass(frozen=True)
class AdapterFeatureExtractor:
    """Several frozen parts that differ in what is learned, of which each image asks for one.

    Attributes:
        compute: From images (B, 3, S, S) and the part of each (B,) to rows (B, ...).
        space: As that of a `FeatureExtractor`.
        parts: Digest of each part.
        device: Where rows from disk are wanted.
        answered: As that of a `FeatureExtractor`.
    """

    compute: Callable[[Tensor, Tensor], Tensor]
    space: str
    parts: Sequence[str]
    device: torch.device
    answered: Callable[[int], None] = _ignore


def extractor_digest(
    compute: Callable[[Tensor], Tensor], weights: Iterable[Tensor], shape: Sequence[int]
) -> tuple[str, int]:
    """Returns a digest of a frozen part, of its weights and what it makes of two images.

    The images stand for what weights do not say: the number of heads, the precision, the machine's
    arithmetic. The second number is the size of a row in bytes.

    Args:
        compute: The part.
        weights: All that it computes with.
        shape: Shape (C, S, S) of an image.
    """
    found = hashlib.sha256()
    for value in weights:
        found.update(str(tuple(value.shape)).encode())
        found.update(_bytes(value))
    probes = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rows = compute(probes)
    found.update(_bytes(rows))
    return found.hexdigest(), rows[0].nbytes


def _bytes(value: Tensor) -> memoryview:
    plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return plain.numpy().data


class CachedFeatures:
    """Rows (N, ...) of the N images of a dataset.

    Args:
        dataset: Avalanche's dataset of the experience. Its attribute `pixel_keys`, where it has
            one, says which images are equal as its group `eval` shows them.
        part: What computes the rows.
        same: Whether the images are those of the group `eval` at each use; or what says which of
            some fixed views they show.
        keep: Whether rows may be kept in memory.
        megabytes: Most memory for what is kept.
        cache: Where rows are kept on disk; None keeps none.
    """

    def __init__(
        self,
        dataset: Any,  # noqa: ANN401 - Avalanche ships no types
        part: FeatureExtractor,
        *,
        same: bool | Views,
        keep: bool = True,
        megabytes: float = 1024,
        cache: FeatureCache | None = None,
    ) -> None:
        self._dataset = dataset
        self._part = part
        self._views = views = same if isinstance(same, FixedViews) else None
        self._keys: list[bytes] = list(getattr(dataset, "pixel_keys", ()))
        # Without keys nothing says which view an image shows.
        comes_again = same is True or (views is not None and bool(self._keys))
        self._keep = comes_again and keep
        self._limit = megabytes * 2**20
        self._kept: Tensor | None = None  # (K N, ...), the first view of each image first
        self._is_known = torch.zeros(0, dtype=torch.bool)
        self._cache = cache if comes_again and part.space else None
        count = len(dataset) * (views.count if views else 1)
        if cache is not None and part.row_bytes * count > _SHARE * cache.limit:
            self._cache = None
        if self._cache is not None and not _is_as_known(dataset, self._cache, views):
            self._cache = None
        self.targets = torch.tensor([int(label) for label in dataset.targets])
        tasks = getattr(dataset, "targets_task_labels", ())
        self._tasks = torch.tensor([int(task) for task in tasks])

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
        """Yields rows and targets.

        Args:
            parts: Indices of each batch; None goes through all images in order.
        """
        for part in self.in_order() if parts is None else parts:
            yield self.rows(part), self.targets[part]

    def rows(self, part: Tensor) -> Tensor:
        """Returns the rows of some images.

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

    def minibatches(self, orders: Iterable[Tensor], *, images: bool) -> "Batches":
        """Returns what Avalanche's loop reads: rows or images; targets; task labels.

        Args:
            orders: Gives the parts of an order each time it is gone through.
            images: Read images where rows would be computed at each use: what follows the frozen
                part then takes them, in one pass.
        """
        return Batches(self, orders, images=images)

    @property
    def is_kept(self) -> bool:
        """Whether rows are kept, on disk or, once `prepare` has run, in memory."""
        return self._cache is not None or self._kept is not None

    def tasks(self, part: Tensor) -> Tensor:
        """Returns the task labels of some images, 0 where the dataset has none."""
        return self._tasks[part] if len(self._tasks) else torch.zeros_like(part)

    def read(self, part: Tensor) -> Tensor:
        """Returns images, as the dataset's transforms show them."""
        return _read(self._dataset, part)

    @torch.no_grad()
    def _computed(self, part: Tensor) -> Tensor:
        if self._cache is None:
            return self._part.compute(self.read(part))
        keys = [self._keys[index] for index in part.tolist()]
        if self._views is not None:
            keys = [self._views.key(key) for key in keys]
        return _ask(
            self._cache,
            self._part,
            keys,
            lambda places: self._part.compute(self.read(part[torch.tensor(places)])),
        )

    def prepare(self) -> None:
        """Computes the rows that are kept in memory, unless they are there or do not fit.

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
    """Rows of a dataset's images, each under the part that it asks for; kept on disk.

    Args:
        dataset: Avalanche's dataset, with the attribute `pixel_keys`.
        choice: What computes the rows.
        cache: Where they are kept.
    """

    def __init__(
        self,
        dataset: Any,  # noqa: ANN401 - Avalanche ships no types
        choice: AdapterFeatureExtractor,
        cache: FeatureCache,
    ) -> None:
        self._dataset, self._choice, self._cache = dataset, choice, cache
        self._keys: list[bytes] = list(getattr(dataset, "pixel_keys", ()))
        self._is_kept = _is_as_known(dataset, cache)
        self._parts = [part.encode() for part in choice.parts]

    @torch.no_grad()
    def rows(self, images: Tensor, parts: Tensor) -> Tensor:
        """Returns the row of each image under its part.

        Shape:
            images, parts: (B,) indices. Output: (B, ...).
        """
        images, parts = images.cpu(), parts.cpu()
        pairs = zip(images.tolist(), parts.tolist(), strict=True)
        keys = [hashlib.sha256(self._keys[i] + self._parts[part]).digest() for i, part in pairs]

        def compute(places: list[int]) -> Tensor:
            wanted = torch.tensor(places)
            return self._choice.compute(_read(self._dataset, images[wanted]), parts[wanted])

        return _ask(self._cache, self._choice, keys, compute)

    @property
    def is_kept(self) -> bool:
        """Whether the dataset says which of its images are equal."""
        return self._is_kept


def _ask(
    cache: FeatureCache,
    part: FeatureExtractor | AdapterFeatureExtractor,
    keys: list[bytes],
    compute: Callable[[list[int]], Tensor],
) -> Tensor:
    before = cache.read
    rows = cache.rows(part.space, keys, compute)
    part.answered(cache.read - before)
    if part.device is None:
        return rows
    rows = rows.pin_memory() if part.device.type == "cuda" else rows
    return rows.to(part.device, non_blocking=True)


def _is_as_known(
    dataset: Any,  # noqa: ANN401
    cache: FeatureCache,
    views: FixedViews | None = None,
) -> bool:
    """Says whether a dataset has keys of its images and shows the pixels that they stand for.

    Avalanche keeps attributes when a dataset gets other transforms, so the first image is compared
    with what its key stood for when it was first seen.
    """
    keys: list[bytes] = list(getattr(dataset, "pixel_keys", ()))
    if not keys:
        return False
    key = keys[0] if views is None else views.key(keys[0])
    shown = _bytes(_read(dataset, torch.tensor([0])))
    seen = torch.frombuffer(bytearray(hashlib.sha256(shown).digest()), dtype=torch.uint8)[None]
    return torch.equal(cache.get_or_set("pixels", key, seen), seen)


def _read(dataset: Any, images: Tensor) -> Tensor:  # noqa: ANN401
    return torch.stack([dataset[index][0] for index in images.tolist()])


class Batches:
    """Minibatches for Avalanche's loop, one order at each pass."""

    def __init__(self, source: CachedFeatures, orders: Iterable[Tensor], *, images: bool) -> None:
        self._source, self._orders, self._images = source, orders, images

    def __len__(self) -> int:
        return len(self._orders)  # type: ignore[arg-type] # what is given here has a length

    def __iter__(self) -> Iterator[list[Tensor]]:
        source = self._source
        read = source.read if self._images and not source.is_kept else source.rows
        for part in self._orders:
            yield [read(part), source.targets[part], source.tasks(part)]
