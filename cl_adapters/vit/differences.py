"""Weights as their difference to others, without changing one of them.

W + (W' - W) is not always W' again in floating point. What is kept is which bits differ.
Where a weight has changed little, its sign, its exponent and the first bits of its fraction are the
same, and these bytes shrink. The last two bytes of a changed weight are as good as noise and stay
as they are, so that half the size is about the least that is left.

    8 bytes    what this is
    32 bytes   SHA-256 of the weights that it is the difference to
    32 bytes   sizes of the four parts that follow, little-endian
    ...        first, second, third and last bytes of all numbers, each part compressed where it
               is smaller so
"""

import hashlib
import struct
import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cl_adapters.errors import InputError

__all__ = ["difference", "summed"]

_MARK: Final = b"CLDIFF01"
_SIZES: Final = struct.Struct("<4Q")
_START: Final = len(_MARK) + 32

Numbers = NDArray[np.float32]


def difference(values: Numbers, base: Numbers) -> bytes:
    """Returns weights as their difference to others.

    Args:
        values: The weights, (N,).
        base: The others, (N,).

    Example:
        >>> base = np.linspace(1, 2, 5000, dtype=np.float32)
        >>> values = np.float32(1.0001) * base
        >>> packed = difference(values, base)
        >>> len(packed) < 0.6 * values.nbytes, bool((summed(packed, base) == values).all())
        (True, True)
    """
    changed = values.view(np.uint32) ^ base.view(np.uint32)
    rows = changed.astype("<u4").view(np.uint8).reshape(-1, 4).T
    parts = []
    for row in rows:
        plain = row.tobytes()
        # Nothing but runs of one byte comes again: looking for more takes long for nothing.
        stream = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
        small = stream.compress(plain) + stream.flush()
        parts.append(small if len(small) < len(plain) else plain)
    sizes = _SIZES.pack(*map(len, parts))
    return b"".join((_MARK, _digest(base), sizes, *parts))


def summed(packed: bytes, base: Numbers) -> Numbers:
    """Returns the weights that `difference` was given, bit for bit.

    Args:
        packed: What it returned.
        base: The same other weights.

    Raises:
        InputError: If the others are not the same, or the bytes are not what it returned.
    """
    if not packed.startswith(_MARK) or len(packed) < _START + _SIZES.size:
        raise InputError(f"a difference of weights must begin with {_MARK!r}, got {packed[:8]!r}")
    if packed[len(_MARK) : _START] != _digest(base):
        raise InputError(
            "a difference of weights must meet the weights that it was made to, got others: the "
            "backbone is not the one of the checkpoint"
        )
    sizes, place = _SIZES.unpack_from(packed, _START), _START + _SIZES.size
    rows = np.empty((len(base), 4), np.uint8)
    for number, size in enumerate(sizes):
        rows[:, number] = _row(packed[place : place + size], len(base))
        place += size
    changed = rows.reshape(-1).view("<u4").astype(np.uint32)
    return (changed ^ base.view(np.uint32)).view(np.float32)


def _row(part: bytes, count: int) -> NDArray[np.uint8]:
    if len(part) == count:
        return np.frombuffer(part, np.uint8)
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(part, count + 1)  # no more, whatever the bytes say
    except zlib.error as error:
        raise InputError(f"a difference of weights must be whole, got: {error}") from error
    if len(plain) != count or not stream.eof:
        raise InputError(
            f"a difference of weights must have {count} bytes in each part, got {len(plain)} or a "
            "part without an end"
        )
    return np.frombuffer(plain, np.uint8)


def _digest(base: Numbers) -> bytes:
    return hashlib.sha256(base.astype("<f4", copy=False).tobytes()).digest()
