"""Blocks of rows in files: what a feature cache consists of on disk."""

import json
import os
import time
import uuid
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

__all__ = []

_FORMAT: Final = "cl-adapters memo 1"  # as the first version wrote it
_SUFFIX: Final = ".memo"
_STALE_SECONDS: Final = 86_400.0  # a temporary file this old belongs to a writer that was killed
_BLOCK_BYTES: Final = 64 * 2**20  # rows wait in memory until they fill a block or are flushed
_USED_SECONDS: Final = 60.0  # a block's time of use is exact to this


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
