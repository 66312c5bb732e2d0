"""Rows of numbers by content, on disk: what a frozen part of a network makes of an image.

A space holds what one part computes; its name is a digest of all that decides about the numbers. A
key is the digest of one input. The first to ask computes, everyone later reads, in this process or
another: blocks are written whole under a temporary name and never change, so no reader waits for a
writer. Each row carries a checksum; a block with damage is thrown away and its rows are computed
again. Beyond its size the memo drops the blocks that were used longest ago.

Nothing here can spoil a run: where the disk is full or read-only, rows are computed and not kept.
"""

import json
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import platformdirs
import pyarrow as pa
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from cl_adapters.errors import InputError

__all__ = ["Memo", "open_memo"]

MEMO_VARIABLE: Final = "CL_ADAPTERS_MEMO"

_FORMAT: Final = "cl-adapters memo 1"
_SUFFIX: Final = ".memo"
_STALE_SECONDS: Final = 86_400.0  # a temporary file this old belongs to a writer that was killed
_BLOCK_BYTES: Final = 64 * 2**20  # rows wait in memory until they fill a block or are flushed
_USED_SECONDS: Final = 60.0  # a block's time of use is exact to this


class Memo:
    """Keeps rows on disk, up to a size.

    Args:
        folder: Where blocks are kept; made when the first is written.
        megabytes: Most that all blocks may take, above 0; the least recently used go first.

    Attributes:
        read: Rows that were answered without computing, so far.
        computed: Rows that had to be computed, so far.
        inherited: Those of `read` that were there before the last `begin`.
        trouble: Why rows are no longer kept; None as long as they are.

    Example:
        >>> import tempfile
        >>> memo = Memo(Path(tempfile.mkdtemp()))
        >>> def double(places: list[int]) -> Tensor:
        ...     return torch.tensor([[2.0 * place] for place in places])
        >>> for _ in range(2):
        ...     rows = memo.rows("ab", [b"zero", b"one"], double)
        >>> rows.tolist(), memo.read, memo.computed
        ([[0.0], [2.0]], 2, 2)
    """

    def __init__(self, folder: Path, *, megabytes: float = 4096) -> None:
        self.folder = folder
        self.limit = int(megabytes * 2**20)
        self.read = 0
        self.computed = 0
        self.inherited = 0
        self.trouble: str | None = None
        self._taken = 0, 0, 0
        self._own: set[tuple[str, bytes]] = set()  # computed since `begin`
        self._spaces: dict[str, _Space] = {}

    def rows(
        self, space: str, keys: Sequence[bytes], compute: Callable[[list[int]], Tensor]
    ) -> Tensor:
        """Returns one row a key, (N, ...) on the CPU.

        Args:
            space: Name of what computes: letters and digits, best a digest.
            keys: Digest of each input.
            compute: From places in `keys`, each a different key, to their rows, (M, ...); asked
                once, for all that are not known, and not at all if everything is.
        """
        known = self._spaces.setdefault(space, _Space(self.folder / space))
        missing = known.missing(keys)
        if missing and known.refresh():
            missing = known.missing(keys)
        if missing:
            known.put(list(missing), compute(list(missing.values())).detach().cpu().contiguous())
        found = known.gather(keys)
        if found is None:  # damage: what the block held is missing now
            return self.rows(space, keys, compute)
        self._own.update((space, key) for key in missing)
        self.computed += len(missing)
        self.read += len(keys) - len(missing)
        self.inherited += sum((space, key) not in self._own for key in keys)
        if known.waiting_bytes >= _BLOCK_BYTES:
            self.flush()
        return found

    def peek(self, space: str, key: bytes, row: Tensor) -> Tensor:
        """Returns the row of a key, (1, ...); the given one becomes it if there is none.

        Like `rows` for something that is known anyway, and not counted.
        """
        counts = self.read, self.computed, self.inherited
        found = self.rows(space, [key], lambda _: row)
        self.read, self.computed, self.inherited = counts
        return found

    def begin(self) -> None:
        """Starts counting for a run: what is there now is inherited from others."""
        self._own.clear()
        self.take_counts()

    def take_counts(self) -> tuple[int, int, int]:
        """Returns how many rows were read, computed and inherited since the last call."""
        now = self.read, self.computed, self.inherited
        counts = tuple(new - old for new, old in zip(now, self._taken, strict=True))
        self._taken = now
        return counts[0], counts[1], counts[2]

    def flush(self) -> None:
        """Writes what waits in memory, then drops the oldest blocks beyond the size."""
        written = 0
        for space in self._spaces.values():
            if self.trouble is None:
                try:
                    written += space.write()
                except OSError as error:
                    self.trouble = f"{self.folder} cannot keep what was computed: {error}"
            space.forget_waiting()
        if written:
            self._shrink()

    def size(self) -> int:
        """Returns the bytes that all blocks take on disk."""
        return sum(size for _, size, _ in self._blocks())

    def _blocks(self) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.glob(f"*/*{_SUFFIX}"):
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
        for space in self._spaces.values():
            space.drop_vanished()


def open_memo(where: str | Path | None = None, *, gigabytes: float = 4.0) -> Memo | None:
    """Returns the memo in a folder; None for none.

    Args:
        where: A folder, or `off` for no memo; None takes the environment variable
            `CL_ADAPTERS_MEMO`, and without it `cl-adapters/memo` in the user's cache.
        gigabytes: Most that it may take on disk, above 0.

    Raises:
        InputError: If the size is no positive number or the folder is a file.
    """
    if not gigabytes > 0:
        raise InputError(f"memo must be larger than 0 gigabytes, got {gigabytes:g}")
    chosen = where or os.environ.get(MEMO_VARIABLE)
    if chosen == "off":
        return None
    folder = Path(chosen) if chosen else platformdirs.user_cache_path("cl-adapters") / "memo"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"memo must be a folder or 'off', got the file {str(folder)!r}")
    return Memo(folder, megabytes=gigabytes * 1024)


@dataclass(eq=False)
class _Block:
    """One file of rows, mapped into memory."""

    path: Path
    keys: list[bytes]
    checksums: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.uint8]  # (N, bytes of a row)
    dtype: torch.dtype
    shape: tuple[int, ...]
    sound: npt.NDArray[np.bool_]  # rows whose checksum was compared
    used: float = 0.0

    def take(self, places: list[int]) -> Tensor | None:
        """Returns some of the rows; None if one is damaged."""
        raw = self.rows[places]
        for place, row in zip(places, raw, strict=True):
            if not self.sound[place]:
                if _checksum(self.keys[place], row) != self.checksums[place]:
                    return None
                self.sound[place] = True
        self._note_use()
        return torch.from_numpy(raw).view(-1).view(self.dtype).view(-1, *self.shape)

    def _note_use(self) -> None:
        now = time.time()
        if now - self.used > _USED_SECONDS:
            self.used = now
            with suppress(OSError):  # dropped by another process, or not ours to touch
                os.utime(self.path)


@dataclass(eq=False)
class _Space:
    """The blocks of one space and what waits to become one."""

    folder: Path
    blocks: dict[str, _Block] = field(default_factory=dict)
    places: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    waiting: dict[bytes, Tensor] = field(default_factory=dict)
    waiting_bytes: int = 0
    listed: float = -1.0

    def missing(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Returns the keys without a row, each with the first place that it has."""
        found: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            if key not in self.places and key not in self.waiting:
                found.setdefault(key, place)
        return found

    def put(self, keys: Sequence[bytes], rows: Tensor) -> None:
        self.waiting.update(zip(keys, rows, strict=True))
        self.waiting_bytes += rows.nbytes

    def gather(self, keys: Sequence[bytes]) -> Tensor | None:
        """Returns the rows of known keys; None if a block was damaged and is gone now."""
        wanted: dict[str | None, list[int]] = {}
        for position, key in enumerate(keys):
            wanted.setdefault(self.places[key][0] if key in self.places else None, []).append(
                position
            )
        parts: list[Tensor] = []
        for name, positions in wanted.items():
            if name is None:
                parts.append(torch.stack([self.waiting[keys[each]] for each in positions]))
                continue
            part = self.blocks[name].take([self.places[keys[each]][1] for each in positions])
            if part is None:
                self._drop(name, unlink=True)
                return None
            parts.append(part)
        order = torch.tensor([each for positions in wanted.values() for each in positions])
        if len(parts) == 1:
            return parts[0]
        together = torch.cat(parts)
        return together[order.argsort()]

    def refresh(self) -> bool:
        """Looks for blocks of other processes; whether there are new ones."""
        try:
            changed = self.folder.stat().st_mtime
        except OSError:
            return False
        if changed == self.listed:
            return False
        self.listed = changed
        new = [path for path in self.folder.glob(f"*{_SUFFIX}") if path.name not in self.blocks]
        opened = [self._open(path) for path in sorted(new)]
        return any(opened)

    def write(self) -> int:
        """Writes what waits as a block; returns how many rows that were."""
        if not self.waiting:
            return 0
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{uuid.uuid4().hex}{_SUFFIX}"
        temporary = path.with_suffix(".tmp")
        rows = torch.stack(list(self.waiting.values()))
        try:
            _write_block(temporary, list(self.waiting), rows)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        self._open(path)
        return len(rows)

    def forget_waiting(self) -> None:
        self.waiting.clear()
        self.waiting_bytes = 0

    def drop_vanished(self) -> None:
        for name in [name for name, block in self.blocks.items() if not block.path.exists()]:
            self._drop(name, unlink=False)

    def _open(self, path: Path) -> bool:
        try:
            block = _read_block(path)
        except OSError:  # not ours to read, or gone
            return False
        except (pa.ArrowException, ValueError, KeyError, TypeError, AttributeError):
            with suppress(OSError):  # damage
                path.unlink(missing_ok=True)
            return False
        if block is None:
            return False
        self.blocks[path.name] = block
        self.places.update((key, (path.name, row)) for row, key in enumerate(block.keys))
        return True

    def _drop(self, name: str, *, unlink: bool) -> None:
        block = self.blocks.pop(name)
        for key in block.keys:
            if self.places.get(key, ("",))[0] == name:
                del self.places[key]
        if unlink:
            with suppress(OSError):
                block.path.unlink(missing_ok=True)


def _checksum(key: bytes, row: npt.NDArray[np.uint8]) -> int:
    return zlib.crc32(row.data, zlib.crc32(key))


def _write_block(path: Path, keys: Sequence[bytes], rows: Tensor) -> None:
    raw = rows.reshape(len(rows), -1).view(torch.uint8).numpy()
    checksums = [_checksum(key, row) for key, row in zip(keys, raw, strict=True)]
    about = {"dtype": str(rows.dtype).removeprefix("torch."), "shape": list(rows.shape[1:])}
    values = pa.Array.from_buffers(pa.binary(raw.shape[1]), len(raw), [None, pa.py_buffer(raw)])
    batch = pa.record_batch(
        [pa.array(keys, pa.binary()), pa.array(checksums, pa.uint32()), values],
        names=["key", "checksum", "row"],
    ).replace_schema_metadata({"format": _FORMAT, "about": json.dumps(about)})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def _read_block(path: Path) -> _Block | None:
    """Maps a block into memory; None if it has another format, a later one's for example.

    Raises:
        OSError: If it cannot be opened.
        ArrowException, ValueError, KeyError, TypeError, AttributeError: If its frame is damaged.
    """
    data = pa.memory_map(str(path))
    try:
        reader = pa.ipc.open_file(data)
    except OSError as error:  # Arrow's word for a frame that makes no sense
        raise ValueError(str(error)) from error
    meta: dict[bytes, bytes] = reader.schema.metadata or {}
    if b"format" in meta and meta[b"format"] != _FORMAT.encode():
        return None
    batch: Any = reader.get_batch(0)
    about = json.loads(meta[b"about"])
    dtype = getattr(torch, about["dtype"])
    shape = tuple(map(int, about["shape"]))
    width = batch["row"].type.byte_width
    if width != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise ValueError(f"rows of {width} bytes")
    raw = np.frombuffer(batch["row"].buffers()[1], np.uint8, len(batch) * width)
    return _Block(
        path=path,
        keys=batch["key"].to_pylist(),
        checksums=batch["checksum"].to_numpy(),
        rows=raw.reshape(len(batch), width),
        dtype=dtype,
        shape=shape,
        sound=np.zeros(len(batch), dtype=bool),
    )
