"""An encoded image without the metadata that a reader may stumble over, its pixels untouched."""

import struct
from typing import Final

__all__ = ["without_metadata"]

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8"
# What decides about pixels, beside the chunks that every reader has to know.
_PNG_KEPT: Final = (b"tRNS",)
# JFIF's own block, and Adobe's, which says how colours are stored.
_JPEG_KEPT: Final = (0xE0, 0xEE)
_START_OF_SCAN: Final = 0xDA


def without_metadata(data: bytes) -> bytes | None:
    """Returns a PNG or JPEG without texts, EXIF and profiles; None if nothing could be dropped."""
    if data.startswith(_PNG):
        stripped = _png(data)
    elif data.startswith(_JPEG):
        stripped = _jpeg(data)
    else:
        return None
    return stripped if len(stripped) < len(data) else None


def _png(data: bytes) -> bytes:
    parts, place = [_PNG], len(_PNG)
    while place + 8 <= len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        kind, end = data[place + 4 : place + 8], place + 12 + size
        if kind[:1].isupper() or kind in _PNG_KEPT:
            parts.append(data[place:end])
        place = end
    return b"".join(parts)


def _jpeg(data: bytes) -> bytes:
    parts, place = [_JPEG], len(_JPEG)
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != _START_OF_SCAN:
        (size,) = struct.unpack(">H", data[place + 2 : place + 4])
        marker, end = data[place + 1], place + 2 + size
        is_metadata = 0xE0 <= marker <= 0xEF and marker not in _JPEG_KEPT
        if not is_metadata and marker != 0xFE:  # a comment
            parts.append(data[place:end])
        place = end
    return b"".join([*parts, data[place:]])
