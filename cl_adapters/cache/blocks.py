"""Blocks of rows in files: what a feature cache consists of on disk.

The format keeps the name that its first version gave it, `memo`, so that the caches of earlier
versions stay valid: `cl-adapters memo 1` in a file `NAMESPACE/*.memo`.
"""

import json
import os
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

__all__ = ["SUFFIX", "Block", "Places", "read_block", "write_block"]

Places = npt.NDArray[np.int64]

SUFFIX: Final = ".memo"
_FORMAT: Final = "cl-adapters memo 1"
_USED_SECONDS: Final = 60.0  # a block's time of use is exact to this


@dataclass(eq=False)
class Block:
    """One file of rows, mapped into memory.

    Attributes:
        path: The file.
        keys: Key of each row.
        checksums: Checksum of each row.
        rows: The rows as bytes (N, bytes of a row).
        dtype: Type of their numbers.
        shape: Shape of a row.
        sound: Rows whose checksum was compared.
        used: When it was last marked as used, in seconds.
    """

    path: Path
    keys: list[bytes]
    checksums: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.uint8]
    dtype: torch.dtype
    shape: tuple[int, ...]
    sound: npt.NDArray[np.bool_]
    used: float = 0.0

    def take(self, places: Places) -> Tensor | None:
        """Returns some of the rows, copied; None if one is damaged."""
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


def write_block(path: Path, keys: Sequence[bytes], rows: Tensor) -> None:
    """Writes rows as a file.

    Raises:
        OSError: If the disk does not take it.
    """
    raw = rows.reshape(len(rows), -1).view(torch.uint8).numpy()
    about = {"dtype": str(rows.dtype).removeprefix("torch."), "shape": list(rows.shape[1:])}
    values = pa.Array.from_buffers(pa.binary(raw.shape[1]), len(raw), [None, pa.py_buffer(raw)])
    batch = pa.record_batch(
        [pa.array(keys, pa.binary()), pa.array(_checksums(keys, raw)), values],
        names=["key", "checksum", "row"],
    ).replace_schema_metadata({"format": _FORMAT, "about": json.dumps(about)})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def read_block(path: Path) -> Block | None:
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
    return Block(
        path=path,
        keys=batch["key"].to_pylist(),
        checksums=batch["checksum"].to_numpy(),
        rows=raw.reshape(len(batch), width),
        dtype=dtype,
        shape=shape,
        sound=np.zeros(len(batch), dtype=bool),
    )
