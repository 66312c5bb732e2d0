"""Rows of numbers by content, on disk: what a frozen part of a network makes of an image.

A namespace holds what one part computes; its name is a digest of all that decides about the
numbers. A key is the digest of one input. The first to ask computes, everyone later reads, in this
process or another: blocks are written whole under a temporary name and never change, so no reader
waits for a writer. Each row carries a checksum, compared when it is first read; a block with damage
is thrown away and its rows are computed again. Beyond its size the cache drops the blocks that were
used longest ago.

Nothing here can spoil a run: where the disk is full or read-only, rows are computed and not kept.
"""

import os
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import platformdirs
from filelock import FileLock, Timeout
from torch import Tensor

from cl_adapters.cache.blocks import SUFFIX, Places
from cl_adapters.cache.namespace import Namespace
from cl_adapters.errors import EarlierNameWarning, InputError
from cl_adapters.paths import user_path

__all__ = ["CACHE_VARIABLE", "FeatureCache", "open_cache"]

CACHE_VARIABLE: Final = "CL_ADAPTERS_CACHE"
_OLD_VARIABLE: Final = "CL_ADAPTERS_MEMO"
_MOST_GIGABYTES: Final = 1e9  # more than any disk
_FOLDER: Final = "memo"  # in the user's cache, as the first version named it: its rows stay valid
_STALE_SECONDS: Final = 86_400.0  # a temporary file this old belongs to a writer that was killed
_BLOCK_BYTES: Final = 64 * 2**20  # rows wait in memory until they fill a block or are flushed


class FeatureCache:
    """Keeps rows on disk, up to a size.

    Args:
        folder: Where blocks are kept; made when the first is written.
        megabytes: Most that all blocks may take, above 0; the least recently used go first.

    Attributes:
        read: Rows that were answered without computing, so far.
        computed: Rows that had to be computed, so far.
        earlier_hits: Those of `read` that were there before the last `begin`.
        trouble: Why rows are no longer kept; None as long as they are.

    Example:
        >>> import tempfile, torch
        >>> cache = FeatureCache(Path(tempfile.mkdtemp()))
        >>> def double(places: list[int]) -> Tensor:
        ...     return torch.tensor([[2.0 * place] for place in places])
        >>> for _ in range(2):
        ...     rows = cache.rows("ab", [b"zero", b"one"], double)
        >>> rows.tolist(), cache.read, cache.computed
        ([[0.0], [2.0]], 2, 2)
    """

    def __init__(self, folder: Path, *, megabytes: float = 4096) -> None:
        self.folder = folder
        self.limit = int(megabytes * 2**20)
        self.read = 0
        self.computed = 0
        self.earlier_hits = 0
        self.trouble: str | None = None
        self._taken = 0, 0, 0
        self._own: defaultdict[str, set[bytes]] = defaultdict(set)  # computed since `begin`
        self._namespaces: dict[str, Namespace] = {}

    def rows(
        self, namespace: str, keys: Sequence[bytes], compute: Callable[[list[int]], Tensor]
    ) -> Tensor:
        """Returns one row a key, (N, ...) on the CPU.

        Args:
            namespace: Name of what computes: letters and digits, best a digest.
            keys: Digest of each input, at least one.
            compute: From places in `keys`, each a different key, to their rows, (M, ...); asked
                once, for all that are not known, and not at all if everything is. Where a block
                turns out to be damaged it is asked once more, for what that held.
        """
        known = self._namespace(namespace)
        computed = 0
        found: Tensor | None = None
        while found is None:  # None: damage, and what the block held is missing now
            codes = known.find(keys)
            if codes.min() < 0 and known.refresh():
                codes = known.find(keys)
            if codes.min() < 0:
                computed += self._compute(namespace, keys, codes, compute)
                codes = known.find(keys)
            found = known.gather(codes)
        self.computed += computed
        self.read += len(keys) - computed
        self.earlier_hits += len(keys) - sum(map(self._own[namespace].__contains__, keys))
        if known.waiting_bytes >= _BLOCK_BYTES:
            self.flush()
        return found

    def _namespace(self, name: str) -> Namespace:
        if name not in self._namespaces:
            self._namespaces[name] = Namespace(self.folder / name)
        return self._namespaces[name]

    def _compute(
        self,
        namespace: str,
        keys: Sequence[bytes],
        codes: Places,
        compute: Callable[[list[int]], Tensor],
    ) -> int:
        missing: dict[bytes, int] = {}
        for place in np.flatnonzero(codes < 0).tolist():
            missing.setdefault(keys[place], place)
        rows = compute(list(missing.values())).detach().cpu().contiguous()
        self._namespace(namespace).put(list(missing), rows)
        self._own[namespace].update(missing)
        return len(missing)

    def get_or_set(self, namespace: str, key: bytes, row: Tensor) -> Tensor:
        """Returns the row of a key, (1, ...); the given one becomes it if there is none.

        Like `rows` for something that is known anyway, and not counted.
        """
        counts = self.read, self.computed, self.earlier_hits
        found = self.rows(namespace, [key], lambda _: row)
        self.read, self.computed, self.earlier_hits = counts
        return found

    def begin(self) -> None:
        """Starts counting for a run: what is there now is an earlier run's."""
        self._own.clear()
        self.take_counts()

    def take_counts(self) -> tuple[int, int, int]:
        """Returns rows read, rows computed and hits of earlier runs' rows since the last call."""
        now = self.read, self.computed, self.earlier_hits
        counts = tuple(new - old for new, old in zip(now, self._taken, strict=True))
        self._taken = now
        return counts[0], counts[1], counts[2]

    def flush(self) -> None:
        """Writes what waits in memory, then drops the oldest blocks beyond the size."""
        written = 0
        for each in self._namespaces.values():
            if self.trouble is None:
                try:
                    written += each.write()
                except OSError as error:
                    self.trouble = f"{self.folder} cannot keep what was computed: {error}"
            each.forget_waiting()
        if written:
            self._shrink()

    def size(self) -> int:
        """Returns the bytes that all blocks take on disk."""
        return sum(size for _, size, _ in self._blocks())

    def _blocks(self) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.glob(f"*/*{SUFFIX}"):
            with suppress(OSError):  # another process dropped it
                stat = path.stat()
                yield stat.st_mtime, stat.st_size, path

    def _shrink(self) -> None:
        for path in self.folder.glob("*/*.tmp"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
        blocks = sorted(self._blocks())
        excess = sum(size for _, size, _ in blocks) - self.limit
        if excess <= 0:
            return
        with suppress(Timeout, OSError), FileLock(self.folder / ".lock", timeout=0):
            for _, size, path in blocks:
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)
                excess -= size
        for each in self._namespaces.values():
            each.drop_vanished()


def open_cache(where: str | Path | None = None, *, gigabytes: float = 4.0) -> FeatureCache | None:
    """Returns the cache in a folder; None for none.

    Args:
        where: A folder, or `off` for no cache; None takes the environment variable
            `CL_ADAPTERS_CACHE`, and without it `cl-adapters/memo` in the user's cache, where
            earlier versions kept theirs too.
        gigabytes: Most that it may take on disk, above 0.

    Raises:
        InputError: If the size is no positive number or the folder is a file.
    """
    if not gigabytes > 0:
        raise InputError(f"cache must be larger than 0 gigabytes, got {gigabytes:g}")
    if gigabytes > _MOST_GIGABYTES:
        raise InputError(f"cache must be {_MOST_GIGABYTES:g} gigabytes at most, got {gigabytes:g}")
    chosen = where or os.environ.get(CACHE_VARIABLE) or _old_variable()
    if chosen == "off":
        return None
    folder = user_path(chosen) if chosen else platformdirs.user_cache_path("cl-adapters") / _FOLDER
    if folder.exists() and not folder.is_dir():
        raise InputError(f"cache must be a folder or 'off', got the file {str(folder)!r}")
    return FeatureCache(folder, megabytes=gigabytes * 1024)


def _old_variable() -> str | None:
    chosen = os.environ.get(_OLD_VARIABLE)
    if chosen:
        message = f"environment variable {_OLD_VARIABLE} is now called {CACHE_VARIABLE}"
        warnings.warn(message, EarlierNameWarning, stacklevel=3)
    return chosen
