"""The rows of one namespace: what its blocks hold and what waits to become one."""

import uuid
from collections.abc import Sequence
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from cl_adapters.cache.blocks import (
    SUFFIX,
    Block,
    DamagedBlockError,
    Places,
    read_block,
    write_block,
)

__all__ = ["Namespace"]

# A row's code is the number of its block and its place there. Known keys are looked up and read
# without running Python a row.
_SHIFT: Final = 32
_MASK: Final = (1 << _SHIFT) - 1
_WAITING: Final = 0  # number of the rows in memory that no file holds yet
_UNKNOWN: Final = -1


class _Waiting:
    """Rows in memory, in a buffer that doubles."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self._buffer: Tensor | None = None

    def append(self, keys: Sequence[bytes], rows: Tensor) -> None:
        start = len(self.keys)
        self.keys += keys
        if self._buffer is None:
            self._buffer = rows.clone()
            return
        if len(self.keys) > len(self._buffer):
            larger = rows.new_empty(2 * len(self.keys), *rows.shape[1:])
            larger[:start] = self._buffer[:start]
            self._buffer = larger
        self._buffer[start : len(self.keys)] = rows

    @property
    def rows(self) -> Tensor:
        if self._buffer is None:
            raise RuntimeError("rows must have been appended, got none")
        return self._buffer[: len(self.keys)]


class Namespace:
    """The blocks of one namespace and what waits to become one.

    Args:
        folder: Where its blocks lie.

    Attributes:
        waiting_bytes: Size of what waits.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waiting_bytes = 0
        self._waiting = _Waiting()
        self._codes: dict[bytes, int] = {}
        self._blocks: dict[int, Block] = {}
        self._next = _WAITING + 1
        self._listed = -1.0

    def find(self, keys: Sequence[bytes]) -> Places:
        """Returns the code of each key's row; below 0 for one that has none."""
        return np.fromiter(map(self._codes.get, keys, repeat(_UNKNOWN)), np.int64, len(keys))

    def put(self, keys: Sequence[bytes], rows: Tensor) -> None:
        """Keeps rows of keys that have none, until `write`."""
        self._remember(keys, _WAITING, len(self._waiting.keys))
        self._waiting.append(keys, rows)
        self.waiting_bytes += rows.nbytes

    def gather(self, codes: Places) -> Tensor | None:
        """Returns the rows of codes (B, ...); None if a block was damaged and is gone now."""
        numbers, places = codes >> _SHIFT, codes & _MASK
        if (numbers == numbers[0]).all():
            return self._take(int(numbers[0]), places)
        parts: list[Tensor] = []
        order: list[Places] = []
        for number in np.unique(numbers).tolist():
            wanted = np.flatnonzero(numbers == number)
            part = self._take(number, places[wanted])
            if part is None:
                return None
            parts.append(part)
            order.append(wanted)
        together = torch.cat(parts)
        rows = torch.empty_like(together)
        rows[torch.from_numpy(np.concatenate(order))] = together
        return rows

    def refresh(self) -> bool:
        """Looks for blocks of other processes; whether there are new ones."""
        try:
            changed = self.folder.stat().st_mtime
        except OSError:
            return False
        if changed == self._listed:
            return False
        self._listed = changed
        known = {block.path for block in self._blocks.values()}
        new = [path for path in self.folder.glob(f"*{SUFFIX}") if path not in known]
        opened = [self._open(path) for path in sorted(new)]
        return any(opened)

    def write(self) -> int:
        """Writes what waits as a block; returns how many rows that were.

        Raises:
            OSError: If the disk does not take it.
        """
        keys = self._waiting.keys
        if not keys:
            return 0
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{uuid.uuid4().hex}{SUFFIX}"
        temporary = path.with_suffix(".tmp")
        try:
            write_block(temporary, keys, self._waiting.rows)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        self._open(path)
        return len(keys)

    def forget_waiting(self) -> None:
        """Drops the rows in memory that no block holds."""
        self._forget(_WAITING, self._waiting.keys)
        self._waiting = _Waiting()
        self.waiting_bytes = 0

    def drop_vanished(self) -> None:
        """Forgets the blocks whose files are gone."""
        gone = [number for number, block in self._blocks.items() if not block.path.exists()]
        for number in gone:
            self._drop(number)

    def _take(self, number: int, places: Places) -> Tensor | None:
        if number == _WAITING:
            return self._waiting.rows[torch.from_numpy(places)]
        block = self._blocks[number]
        rows = block.take(places)
        if rows is None:
            self._drop(number)
            with suppress(OSError):
                block.path.unlink(missing_ok=True)
        return rows

    def _open(self, path: Path) -> bool:
        try:
            block = read_block(path)
        except OSError:  # not ours to read, or gone
            return False
        except DamagedBlockError:
            with suppress(OSError):  # damage
                path.unlink(missing_ok=True)
            return False
        if block is None:
            return False
        self._blocks[self._next] = block
        self._remember(block.keys, self._next, 0)
        self._next += 1
        return True

    def _remember(self, keys: Sequence[bytes], number: int, start: int) -> None:
        first = (number << _SHIFT) + start
        self._codes.update(zip(keys, range(first, first + len(keys)), strict=True))

    def _drop(self, number: int) -> None:
        self._forget(number, self._blocks.pop(number).keys)

    def _forget(self, number: int, keys: Sequence[bytes]) -> None:
        for key in keys:
            if self._codes.get(key, _UNKNOWN) >> _SHIFT == number:
                del self._codes[key]
