"""Where images are kept until they are read (files, an Arrow column, an array), and decoding."""

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import ExifTags, Image, UnidentifiedImageError

from cl_adapters.errors import InputError

__all__ = [
    "ArrayStore",
    "ArrowStore",
    "ChangedStore",
    "FileStore",
    "ImageStore",
    "PickedStore",
    "decode_image",
]

Pixels = npt.NDArray[np.uint8]

MODES: Final = ("1", "L", "LA", "P", "RGB", "RGBA")
# Named, because Pillow would else try every format it knows, Ghostscript's among them. A phone's
# multi-picture file opens as JPEG.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# How to turn an image upright, by its EXIF orientation. Pillow's own function also rewrites the
# EXIF block, which can fail on photographs that are otherwise sound.
UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's readers raise on damaged bytes.
DAMAGE: Final = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class ImageStore(Protocol):
    """Where the images are kept, by row."""

    def encoded(self, row: int) -> bytes | memoryview:
        """Returns what identifies the image: the bytes as stored."""

    def pixels(self, row: int) -> Pixels:
        """Returns the image as uint8 (H, W, 3)."""

    def name(self, row: int) -> str:
        """Returns how to call the image in a message: its path or its row."""


def decode_image(data: bytes | memoryview, name: str) -> Pixels:
    """Decodes an image into uint8 (H, W, 3), upright by its EXIF orientation.

    Grey and palette images become RGB; an alpha channel is dropped. Of an animation the first
    frame counts.

    Args:
        data: Encoded bytes.
        name: How to call the image in a message.

    Raises:
        InputError: If the bytes are damaged, too large for Pillow's limit or of another mode.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.mode in MODES:
            _check_size(image)
            return _to_pixels(image)
    except UnidentifiedImageError as error:
        raise InputError(f"image {name} must be a {', '.join(FORMATS)} file, is none") from error
    except DAMAGE as error:
        raise InputError(f"image {name} must be readable, got: {error}") from error
    raise InputError(f"image {name} must have mode {', '.join(MODES)}, got {image.mode}")


def _to_pixels(image: Image.Image) -> Pixels:
    image.load()  # turns a TIFF upright and drops the tag
    turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    # A palette with alpha goes through RGBA, which Pillow asks for.
    image = image.convert("RGBA") if image.mode == "P" else image
    image = image if image.mode == "RGB" else image.convert("RGB")
    return np.array(image if turn is None else image.transpose(turn))


def _check_size(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(f"{image.width} x {image.height} pixels, more than the limit of {limit}")


@dataclass(frozen=True, eq=False)
class FileStore:
    """Images in files.

    Attributes:
        root: Folder that the paths are relative to.
        paths: One file a row.
    """

    root: Path
    paths: Sequence[str]

    def encoded(self, row: int) -> bytes:
        """Returns the file's content."""
        path = self.root / self.paths[row]
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"image {self.name(row)} must be readable, got: {error}") from error

    def pixels(self, row: int) -> Pixels:
        """Returns the image as uint8 (H, W, 3)."""
        return decode_image(self.encoded(row), self.name(row))

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
    """

    path: Path
    column: pa.LargeBinaryArray

    def encoded(self, row: int) -> memoryview:
        """Returns the bytes, not copied."""
        return memoryview(self.column[row].as_buffer())

    def pixels(self, row: int) -> Pixels:
        """Returns the image as uint8 (H, W, 3)."""
        return decode_image(self.encoded(row), self.name(row))

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
