"""Labelled images that stay encoded until they are read, and the source that holds two sets of them.

A store keeps the bytes (files, an Arrow column, an array); `LabelledImages` is a choice of its rows
with labels, so that the train and test sets of one file share the bytes.
"""

import hashlib
import io
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from cl_adapters.errors import InputError

__all__ = [
    "ArrayStore",
    "FileStore",
    "ImageSource",
    "ImageStore",
    "LabelledImages",
    "decode_image",
    "natural_key",
    "split_off",
    "verify_images",
]

Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

MODES: Final = ("1", "L", "LA", "P", "RGB", "RGBA")
# Named, because Pillow would else try every format it knows, Ghostscript's among them. A phone's
# multi-picture file opens as JPEG.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
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


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """A set of images with labels, decoded when read.

    Attributes:
        store: Where the images are kept.
        rows: Rows of the store that belong to the set, (N,) int64.
        targets: Index of each image's class in `classes`, (N,) int64.
        classes: Class names.
    """

    store: ImageStore
    rows: Indices
    targets: Indices
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Pixels:
        """Returns an image as uint8 (H, W, 3).

        Raises:
            InputError: If the image cannot be decoded; the text names it.
        """
        return self.store.pixels(int(self.rows[index]))

    def name(self, index: int) -> str:
        """Returns how to call an image in a message: its path or its row."""
        return self.store.name(int(self.rows[index]))

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """SHA-256 of the encoded bytes of each image; equal images have equal digests."""
        return tuple(hashlib.sha256(self.store.encoded(int(row))).digest() for row in self.rows)

    def take(self, indices: Indices) -> "LabelledImages":
        """Returns the set of some of the images, with what is known of their digests."""
        taken = LabelledImages(self.store, self.rows[indices], self.targets[indices], self.classes)
        if "digests" in vars(self):
            vars(taken)["digests"] = tuple(self.digests[index] for index in indices.tolist())
        return taken

    def checksum(self) -> str:
        """Returns a SHA-256 over images and class names that does not depend on their order."""
        names = [f"{len(name)}:{name}:".encode() for name in self.classes]
        pairs = zip(self.targets.tolist(), self.digests, strict=True)
        samples = sorted(hashlib.sha256(names[target] + image).digest() for target, image in pairs)
        return hashlib.sha256(b"".join(samples)).hexdigest()


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Train and test images over the same classes.

    Attributes:
        name: Name for reports and run directories.
        classes: Class names in natural order; targets index into them.
        train: Images to learn from.
        test: Images to evaluate on.
    """

    name: str
    classes: tuple[str, ...]
    train: LabelledImages
    test: LabelledImages

    def __post_init__(self) -> None:
        if not self.classes:
            raise InputError(f"source {self.name!r} must hold at least one class, got none")
        for split, images in (("train", self.train), ("test", self.test)):
            counts = np.bincount(images.targets, minlength=len(self.classes))
            for index in np.flatnonzero(counts == 0):
                raise InputError(
                    f"class {self.classes[index]!r} of {self.name!r} must have at least one "
                    f"{split} image, got 0"
                )

    def describe(self) -> dict[str, object]:
        """Returns what of the source belongs into a run's fingerprint."""
        return {
            "classes": len(self.classes),
            "train": {"images": len(self.train), "sha256": self.train.checksum()},
            "test": {"images": len(self.test), "sha256": self.test.checksum()},
        }


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
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.mode in MODES:
            _check_size(image)
            image = ImageOps.exif_transpose(image)
            # A palette with alpha goes through RGBA, which Pillow asks for.
            image = image.convert("RGBA") if image.mode == "P" else image
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except DAMAGE as error:
        reason = str(error).replace("<_io.BytesIO object at ", "<bytes at ")
        raise InputError(f"image {name} must be readable, got: {reason}") from error
    raise InputError(f"image {name} must have mode {', '.join(MODES)}, got {image.mode}")


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
        image = self.images[row]
        return str(image.shape).encode() + image.tobytes()

    def pixels(self, row: int) -> Pixels:
        """Returns the image as uint8 (H, W, 3)."""
        image = self.images[row]
        return image.copy() if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)

    def name(self, row: int) -> str:
        """Returns array and row."""
        return f"{row} of {self.label}"


def natural_key(name: str) -> tuple[object, ...]:
    """Returns a sort key that puts `2` before `10`.

    Example:
        >>> sorted(["10", "b2", "2", "b10"], key=natural_key)
        ['2', '10', 'b2', 'b10']
    """
    # Splitting by digits puts text at even and numbers at odd places, so that keys compare.
    parts = re.split(r"([0-9]+)", name)
    return (*(int(part) if place % 2 else part for place, part in enumerate(parts)), name)


def split_off(
    images: LabelledImages, share: float, seed: int = 0
) -> tuple[LabelledImages, LabelledImages]:
    """Splits a set into train and test by class.

    Each class is ranked by the digest of seed and image, so the same images give the same split
    under any file name and on any machine, and equal images land on the same side.

    Args:
        images: The images to split.
        share: Share of each class that goes to test, in (0, 1); at least one image goes to each.
        seed: Changes the ranking.

    Returns:
        The train and the test images, each in the order of `images`.

    Raises:
        InputError: If the share is out of range or a class has fewer than two images.
    """
    if not 0 < share < 1:
        raise InputError(f"test share must lie between 0 and 1, got {share}")
    salt = f"{seed}:".encode()
    keys = [hashlib.sha256(salt + image).digest() for image in images.digests]
    is_test = np.zeros(len(images), dtype=bool)
    for target, name in enumerate(images.classes):
        members = np.flatnonzero(images.targets == target).tolist()
        if len(members) < 2:
            raise InputError(
                f"class {name!r} must have at least two images to be split into train and test, "
                f"got {len(members)}"
            )
        count = min(max(1, round(share * len(members))), len(members) - 1)
        is_test[sorted(members, key=lambda index: keys[index])[:count]] = True
    return images.take(np.flatnonzero(~is_test)), images.take(np.flatnonzero(is_test))


def verify_images(source: ImageSource, on_image: Callable[[], None] | None = None) -> None:
    """Decodes every image once, so that a damaged one is found before a run starts.

    Args:
        source: The source to check.
        on_image: Called after each image, for a progress bar.

    Raises:
        InputError: At the first image that cannot be decoded; the text names it.
    """
    for images in (source.train, source.test):
        for index in range(len(images)):
            images.read(index)
            if on_image is not None:
                on_image()
