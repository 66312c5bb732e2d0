"""What stands before a graph: from a decoded image to its bytes, said so that others can do it.

`examples/service/pixels.py` does it with Pillow and NumPy alone.
"""

from typing import Any

from cl_adapters.images.decoding import MAX_RATIO
from cl_adapters.images.transforms import Preprocess

__all__ = ["pixels_described"]


def pixels_described(pixels: Preprocess) -> dict[str, Any]:
    """Returns what `preprocess.json` says.

    Args:
        pixels: The pipeline of the run; what it does in training is left out.

    Example:
        >>> found = pixels_described(Preprocess(image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3))
        >>> found["short_side"], found["filter"], found["layout"]
        (32, 'bicubic', 'uint8, (batch, 3, 32, 32), red green blue')
    """
    size = pixels.image_size
    return {
        "format_version": 1,
        "decoding": "RGB, 8 bits a channel, upright by its EXIF orientation, alpha dropped; of 16 "
        "bits a value the upper 8, floats and 32 bits scaled by their range",
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
        "longest": MAX_RATIO,
        "longer_images": "beyond this ratio of sides the model resizes only what the crop shows: "
        "other rounding, by 0.4 of 255 on average in noise and 2 at most in smooth pictures",
    }
