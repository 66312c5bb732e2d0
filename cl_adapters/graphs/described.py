"""What stands before a graph: from a decoded image to its bytes, said so that others can do it.

`examples/service/pixels.py` does it with Pillow and NumPy alone.
"""

from typing import Any, Final, Protocol

__all__ = ["LONGEST", "Pixels", "pixels_described"]

# Of longer images (long side over short side) `Preprocess` never resizes the whole.
LONGEST: Final = 16


class Pixels(Protocol):
    """The part of a `Preprocess` that evaluation uses."""

    image_size: int
    resize: int | None
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def pixels_described(pixels: Pixels) -> dict[str, Any]:
    """Returns what `preprocess.json` says.

    Args:
        pixels: The pipeline of the run; what it does in training is left out.

    Example:
        >>> from types import SimpleNamespace
        >>> half = (0.5, 0.5, 0.5)
        >>> given = dict(image_size=32, resize=None, interpolation="bicubic", mean=half, std=half)
        >>> found = pixels_described(SimpleNamespace(**given))
        >>> found["short_side"], found["filter"], found["layout"]
        (32, 'bicubic', 'uint8, (batch, 3, 32, 32), red green blue')
    """
    size = pixels.image_size
    return {
        "format_version": 1,
        "decoding": "RGB, 8 bits a channel, upright by its EXIF orientation, alpha dropped",
        "size": size,
        "short_side": pixels.resize or size,
        "long_side": "short_side * long // short",
        "filter": pixels.interpolation,
        "crop": "centre, size x size; left = round((width - size) / 2), top likewise, "
        "halves to even",
        "layout": f"uint8, (batch, 3, {size}, {size}), red green blue",
        "in_the_graph": "(pixel / 255 - mean) / std",
        "mean": list(pixels.mean),
        "std": list(pixels.std),
        "longest": LONGEST,
        "longer_images": "beyond this ratio of sides the model itself resizes only what the crop "
        "shows, so that its bytes may differ a little from those of these steps",
    }
