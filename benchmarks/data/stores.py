"""Where images are kept until they are read: files, an Arrow column, an array."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from cl_adapters.errors import InputError
from cl_adapters.images.decoding import FORMATS, Pixels, decode, decode_image

__all__ = [
    "FORMATS",
    "ArrayStore",
    "ArrowStore",
    "ChangedStore",
    "FileStore",
    "ImageStore",
    "PickedStore",
    "Pixels",
    "decode_image",
]


class ImageStore(Protocol):
    """Where the images are kept, by row."""

    def encoded(self, row: int) -> bytes | memoryview:
        """Returns what identifies the image: the bytes as stored."""

    def pixels(self, row: int) -> Pixels:
        """Returns the image as uint8 (H, W, 3)."""

    def name(self, row: int) -> str:
        """Returns how to call the image in a message: its path or its row."""


@dataclass(frozen=True, eq=False)
class FileStore:
    """Images in files.

    Attributes:
        root: Folder that the paths are relative to.
        paths: One file a row.
        max_pixels: Most pixels of an image; None for Pillow's limit.
    """

    root: Path
    paths: Sequence[str]
    max_pixels: int | None = None

    def encoded(self, row: int) -> bytes:
        """Returns the file's content."""
        path = self.root / self.paths[row]
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"image {self.name(row)} must be readable, got: {error}") from error

    def pixels(self, row: int) -> Pixels:
        """Returns the image as uint8 (H, W, 3)."""
        return self.decoded(row)[0]

    def decoded(self, row: int) -> tuple[Pixels, int]:
        """Returns the image, and which of `decoding.NOTES` hold for it."""
        return decode(self.encoded(row), self.name(row), self.max_pixels)

    def name(self, row: int) -> str:
        """Returns the quoted path."""
        return repr(str(self.root / self.paths[row]))


@dataclass(frozen=True, eq=False)
class ArrayStore:
    """Decoded images of one size in memory.

    Attributes:
        label: Name of the array for messages.
        images: Pixels, (N, H, W, 3) or (N, H, W) uint8.
    """

    label: str
    images: Pixels

    def encoded(self, row: int) -> bytes:
        """Returns shape and pixels."""
        image: Pixels = self.images[row]
        return str(image.shape).encode() + image.tobytes()

    def pixels(self, row: int) -> Pixels:
        """Returns the image as uint8 (H, W, 3)."""
        image = self.images[row]
        return image.copy() if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)

    def name(self, row: int) -> str:
        """Returns array and row."""
        return f"{row} of {self.label}"


@dataclass(frozen=True, eq=False)
class ArrowStore:
    """Encoded images in one Arrow column.

    Attributes:
        path: The file or folder it was read from.
        column: The bytes, `large_binary`, without nulls.
        max_pixels: Most pixels of an image; None for Pillow's limit.
    """

    path: Path
    column: pa.LargeBinaryArray
    max_pixels: int | None = None

    def encoded(self, row: int) -> memoryview:
        """Returns the bytes, not copied."""
        return memoryview(self.column[row].as_buffer())

    def pixels(self, row: int) -> Pixels:
        """Returns the image as uint8 (H, W, 3)."""
        return self.decoded(row)[0]

    def decoded(self, row: int) -> tuple[Pixels, int]:
        """Returns the image, and which of `decoding.NOTES` hold for it."""
        return decode(self.encoded(row), self.name(row), self.max_pixels)

    def name(self, row: int) -> str:
        """Returns the row and the file."""
        return f"in row {row} of {str(self.path)!r}"


@dataclass(frozen=True, eq=False)
class ChangedStore:
    """The images of another store with changed pixels.

    Attributes:
        store: Where the images are kept.
        change: From uint8 (H, W, 3) to the same; its `repr` says what it does.
    """

    store: ImageStore
    change: Callable[[Pixels], Pixels]

    def encoded(self, row: int) -> bytes:
        """Returns the change and the original's bytes: a changed image has a digest of its own."""
        return repr(self.change).encode() + self.store.encoded(row)

    def pixels(self, row: int) -> Pixels:
        """Returns the changed image as uint8 (H, W, 3)."""
        return self.change(self.store.pixels(row))

    def name(self, row: int) -> str:
        """Returns how to call the original."""
        return self.store.name(row)


@dataclass(frozen=True, eq=False)
class PickedStore:
    """Images picked from several stores.

    Attributes:
        picks: Store and row there of each image.
    """

    picks: Sequence[tuple[ImageStore, int]]

    def encoded(self, row: int) -> bytes | memoryview:
        """Returns what identifies the image where it was picked."""
        store, place = self.picks[row]
        return store.encoded(place)

    def pixels(self, row: int) -> Pixels:
        """Returns the image as uint8 (H, W, 3)."""
        store, place = self.picks[row]
        return store.pixels(place)

    def name(self, row: int) -> str:
        """Returns how to call the image where it was picked."""
        store, place = self.picks[row]
        return store.name(place)

    def decoded(self, row: int) -> tuple[Pixels, int]:
        """Returns the image, and which of `decoding.NOTES` hold for it, none if unknown."""
        store, place = self.picks[row]
        if isinstance(store, FileStore | ArrowStore | PickedStore):
            return store.decoded(place)
        return store.pixels(place), 0
