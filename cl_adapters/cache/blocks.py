"""Blocks of rows in files: what a feature cache consists of on disk.

The format keeps the name that its first version gave it, `memo`, so that the caches of earlier
versions stay valid: `cl-adapters memo 1` in a file `NAMESPACE/*.memo`.
"""

import errno
import json
import mmap
import os
import stat
import time
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

__all__ = ["SUFFIX", "Block", "DamagedBlockError", "Places", "read_block", "write_block"]

Places = npt.NDArray[np.int64]

SUFFIX: Final = ".memo"
_FORMAT: Final = "cl-adapters memo 1"
_USED_SECONDS: Final = 60.0  # a block's time of use is exact to this


class DamagedBlockError(ValueError):
    """Raised when a file is no block that was written whole."""


@dataclass(eq=False)
class Block:
    """One file of rows, mapped into memory.

    Attributes:
        path: The file.
        mapped: The file in memory.
        size: Its bytes; a file that was cut since is not looked at, which would end the process.
        keys: Key of each row.
        checksums: Checksum of each row.
        rows: The rows as bytes (N, bytes of a row).
        dtype: Type of their numbers.
        shape: Shape of a row.
        sound: Rows whose checksum was compared.
        used: When it was last marked as used, in seconds.
    """

    path: Path
    mapped: mmap.mmap
    size: int
    keys: list[bytes]
    checksums: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.uint8]
    dtype: torch.dtype
    shape: tuple[int, ...]
    sound: npt.NDArray[np.bool_]
    used: float = 0.0

    def take(self, places: Places) -> Tensor | None:
        """Returns some of the rows, copied; None if one is damaged."""
        if self.mapped.size() < self.size:
            return None
        raw = self.rows[places]
        is_new = ~self.sound[places]
        if is_new.any():
            new = places[is_new]
            found = _checksums([self.keys[place] for place in new.tolist()], raw[is_new])
            if (found != self.checksums[new]).any():
                return None
            self.sound[new] = True
        self._note_use()
        return torch.from_numpy(raw).view(-1).view(self.dtype).view(-1, *self.shape)

    def _note_use(self) -> None:
        now = time.time()
        if now - self.used > _USED_SECONDS:
            self.used = now
            with suppress(OSError):  # dropped by another process, or not ours to touch
                os.utime(self.path)


def _checksums(keys: Iterable[bytes], rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    # Each row's CRC goes on from that of its key; no Python is run a row.
    sums = map(zlib.crc32, rows, map(zlib.crc32, keys))
    return np.fromiter(sums, np.uint32, len(rows))


def _sum_of(text: bytes) -> str:
    return f"{zlib.crc32(text):08x}"


def write_block(path: Path, keys: Sequence[bytes], rows: Tensor) -> None:
    """Writes rows as a file.

    Raises:
        OSError: If the disk does not take it.
    """
    raw = rows.reshape(len(rows), -1).view(torch.uint8).numpy()
    shape = list(rows.shape[1:])
    about = json.dumps({"dtype": str(rows.dtype).removeprefix("torch."), "shape": shape})
    values = pa.Array.from_buffers(pa.binary(raw.shape[1]), len(raw), [None, pa.py_buffer(raw)])
    batch = pa.record_batch(
        [pa.array(keys, pa.binary()), pa.array(_checksums(keys, raw)), values],
        names=["key", "checksum", "row"],
    )
    facts = {"format": _FORMAT, "about": about, "about_sum": _sum_of(about.encode())}
    batch = batch.replace_schema_metadata(facts)
    # An open file: of text pyarrow would make an address, or refuse what is no UTF-8.
    with path.open("wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def read_block(path: Path) -> Block | None:
    """Maps a block into memory; None if it has another format, a later one's for example.

    Nothing is taken from it before its frame is known to be sound: what a damaged one says about
    places in memory would end the process.

    Raises:
        OSError: If it cannot be opened, or is no file, such as a pipe, which would be waited for.
        DamagedBlockError: If its frame is damaged.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a file", str(path))
    with path.open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise DamagedBlockError("an empty file") from error
    try:
        return _framed(path, mapped)
    except Exception as error:  # whatever the libraries make of what makes no sense
        raise DamagedBlockError(str(error)) from error


def _framed(path: Path, mapped: mmap.mmap) -> Block | None:
    reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped)))
    meta: dict[bytes, bytes] = reader.schema.metadata or {}
    if b"format" in meta and meta[b"format"] != _FORMAT.encode():
        return None
    if meta.get(b"about_sum", b"") not in (b"", _sum_of(meta[b"about"]).encode()):
        raise ValueError("another type or shape than was written")
    batch: Any = reader.get_batch(0)
    batch.validate(full=True)
    about = json.loads(meta[b"about"])
    dtype = getattr(torch, about["dtype"])
    shape = tuple(map(int, about["shape"]))
    width = batch["row"].type.byte_width
    if width != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise ValueError(f"rows of {width} bytes")
    if any(batch[name].null_count for name in ("key", "checksum", "row")) or batch["row"].offset:
        raise ValueError("rows that are missing")
    raw = np.frombuffer(batch["row"].buffers()[1], np.uint8, len(batch) * width)
    return Block(
        path=path,
        mapped=mapped,
        size=len(mapped),
        keys=batch["key"].to_pylist(),
        checksums=batch["checksum"].to_numpy(),
        rows=raw.reshape(len(batch), width),
        dtype=dtype,
        shape=shape,
        sound=np.zeros(len(batch), dtype=bool),
    )
