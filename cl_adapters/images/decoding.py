"""From an encoded image to upright RGB pixels, whatever mode it has and whatever its metadata say.

What Pillow decodes is accepted, and what was done to it is said: CMYK, LAB and YCbCr become RGB as
Pillow turns them, of 16 bits a value the upper 8 are kept, floats are scaled by their range. Sound
pixels are never refused for their metadata: an orientation that cannot be read is none.
"""

import io
import struct
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError, features

from cl_adapters.errors import InputError
from cl_adapters.images.stripping import without_metadata

__all__ = [
    "FORMATS",
    "MAX_RATIO",
    "NOTES",
    "SUFFIXES",
    "Pixels",
    "decode",
    "decode_image",
    "decode_picture",
    "noted",
    "shorter_side",
]

Pixels = npt.NDArray[np.uint8]

# Of images longer than this, the middle is kept and nothing else resized: the whole could fill the
# memory.
MAX_RATIO: Final = 16

# Named, because Pillow would else try every format it knows, Ghostscript's among them. A phone's
# multi-picture file opens as JPEG.
_ALWAYS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# Formats that not every Pillow was built with, by the name of what it needs, and their suffixes.
_SOMETIMES: Final = {
    "avif": ("AVIF", (".avif",)),
    "jpg_2000": ("JPEG2000", (".j2k", ".jp2", ".jpx")),
}


def _has(feature: str) -> bool:
    with warnings.catch_warnings():  # an older Pillow does not know the name
        warnings.simplefilter("ignore")
        return bool(features.check(feature))


_HERE: Final = [each for feature, each in _SOMETIMES.items() if _has(feature)]
FORMATS: Final = (*_ALWAYS, *(name for name, _ in _HERE))
SUFFIXES: Final = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff",
    ".webp", *(suffix for _, suffixes in _HERE for suffix in suffixes),
)  # fmt: skip
PLAIN: Final = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "La")
# What was done to an image that the user may want to know. An image's notes are bits, by place.
NOTES: Final = (
    "whose metadata cannot be read, taken as upright",
    "in CMYK, turned into RGB as Pillow does",
    "in LAB, YCbCr or HSV, turned into RGB as Pillow does",
    "of 16 bits a value, cut to the upper 8",
    "of floats or 32 bits a value, scaled by their range",
)
_METADATA, _CMYK, _COLOUR, _SIXTEEN, _RANGE = range(len(NOTES))
_COLOURS: Final = {"CMYK": _CMYK, "LAB": _COLOUR, "YCbCr": _COLOUR, "HSV": _COLOUR}
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
    RuntimeError,  # of libavif
    SyntaxError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    ZeroDivisionError,
    OverflowError,
    MemoryError,
    struct.error,
    UserWarning,  # where warnings are errors
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_BOMBS: Final = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_ONE_AT_A_TIME: Final = threading.Lock()


def decode_image(data: bytes | memoryview, name: str, max_pixels: int | None = None) -> Pixels:
    """Decodes an image into uint8 (H, W, 3); see `decode`."""
    return decode(data, name, max_pixels)[0]


def decode(
    data: bytes | memoryview, name: str, max_pixels: int | None = None
) -> tuple[Pixels, int]:
    """Decodes an image into uint8 (H, W, 3); see `decode_picture`.

    Returns:
        The pixels, and which of `NOTES` hold, a bit each.
    """
    picture, notes, _ = decode_picture(data, name, max_pixels)
    return np.array(picture), notes


def decode_picture(
    data: bytes | memoryview, name: str, max_pixels: int | None = None
) -> tuple[Image.Image, int, str]:
    """Decodes an image into one of Pillow's in RGB, upright by its EXIF orientation.

    Grey and palette images become RGB; an alpha channel is dropped. Of an animation the first
    frame counts.

    Args:
        data: Encoded bytes.
        name: How to call the image in a message.
        max_pixels: Most pixels, width times height; None for Pillow's limit.

    Returns:
        The image, which of `NOTES` hold, a bit each, and Pillow's mode of it as stored.

    Raises:
        InputError: If the bytes are damaged, too large or of a mode that is no picture.
    """
    try:
        return _decoded(data, max_pixels)
    except DAMAGE as error:
        is_large = isinstance(error, (_TooLargeError, *_BOMBS))
        stripped = None if is_large else without_metadata(bytes(data))
        sentence = _refusal(error, name)
        if stripped is None:
            raise InputError(sentence) from error
    try:
        picture, notes, mode = _decoded(stripped, max_pixels)
    except DAMAGE as error:
        is_large = isinstance(error, (_TooLargeError, *_BOMBS))
        raise InputError(_refusal(error, name) if is_large else sentence) from error
    return picture, notes | 1 << _METADATA, mode


def shorter_side(data: bytes | memoryview, max_pixels: int | None = None) -> int | None:
    """Returns the shorter side of an encoded image in pixels, as its header says.

    None if the header cannot be read.
    """
    try:
        with _limit(max_pixels):
            return min(Image.open(io.BytesIO(data), formats=FORMATS).size)
    except DAMAGE:
        return None


def _refusal(error: BaseException, name: str) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"image {name} must be a {', '.join(FORMATS)} file, is none"
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    is_large = isinstance(error, (_TooLargeError, *_BOMBS))
    way_out = "; `max_megapixels` sets another limit" if is_large else ""
    return f"image {name} must be readable, got: {reason}{way_out}"


class _TooLargeError(ValueError):
    pass


def _decoded(data: bytes | memoryview, max_pixels: int | None) -> tuple[Image.Image, int, str]:
    with _limit(max_pixels) as limit:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    if limit is not None and image.width * image.height > limit:
        raise _TooLargeError(
            f"{image.width} x {image.height} pixels, more than the limit of {limit:,}"
        )
    mode = image.mode
    image.load()  # turns a TIFF upright and drops the tag
    turn, notes = _orientation(image)
    image, more = _as_rgb(image)
    return image if turn is None else image.transpose(turn), notes | more, mode


@contextmanager
def _limit(max_pixels: int | None) -> Iterator[int | None]:
    # Pillow's own limit is a global of its module, and it is asked while a header is read.
    if max_pixels is None:
        yield Image.MAX_IMAGE_PIXELS
        return
    with _ONE_AT_A_TIME:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield max_pixels
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _orientation(image: Image.Image) -> tuple[Image.Transpose | None, int]:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - whatever Pillow raises, the pixels are sound
        return None, 1 << _METADATA
    return (UPRIGHT.get(value) if isinstance(value, int) else None), 0


def _as_rgb(image: Image.Image) -> tuple[Image.Image, int]:
    mode = image.mode
    is_sixteen = mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM"))
    if is_sixteen or mode in ("I", "F"):
        values = np.array(image).astype(np.float64)
        grey = _grey(values // 256 if is_sixteen else _scaled(values))
        return grey, 1 << (_SIXTEEN if is_sixteen else _RANGE)
    if mode not in (*PLAIN, *_COLOURS):
        raise ValueError(f"mode {mode}, which is no picture")
    # A palette with alpha goes through RGBA, which Pillow asks for.
    image = image.convert("RGBA") if mode in ("P", "PA") else image
    notes = 1 << _COLOURS[mode] if mode in _COLOURS else 0
    return (image if image.mode == "RGB" else image.convert("RGB")), notes


def _grey(values: npt.NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")


def _scaled(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns values in [0, 255]: of [0, 1], of 8 bits, of 16 bits, or between their extremes."""
    if not np.isfinite(values).all():
        raise ValueError("pixels that are not finite numbers")
    low, high = float(values.min()), float(values.max())
    for top in (1, 255, 65535):
        if low >= 0 and high <= top:
            return np.rint(values * (255 / top))
    if high == low:
        return np.zeros_like(values)
    return np.rint(np.interp(values, (low, high), (0, 255)))


def noted(bits: Sequence[int]) -> dict[str, int]:
    """Returns how many images each note holds for, given the notes of each image."""
    counts = Counter(note for each in bits for place, note in enumerate(NOTES) if each >> place & 1)
    return {note: counts[note] for note in NOTES if counts[note]}
