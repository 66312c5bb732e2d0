"""From a photo to a model's input, as its `preprocess.json` says: Pillow and NumPy alone."""

import numpy as np
from PIL import Image, ImageOps


def pixels(photo: Image.Image, rule: dict) -> np.ndarray:
    """Returns a photo as bytes (3, S, S), red green blue; of 8 bits a value alone."""
    if photo.mode[0] in "IF":
        raise ValueError(f"8 bits a value, got mode {photo.mode}")
    image = ImageOps.exif_transpose(photo).convert("RGB")
    size, short = rule["size"], min(image.size)
    wide, high = (rule["short_side"] * side // short for side in image.size)
    resized = image.resize((wide, high), Image.Resampling[rule["filter"].upper()])
    left, top = round((wide - size) / 2), round((high - size) / 2)
    crop = resized.crop((left, top, left + size, top + size))
    return np.asarray(crop).transpose(2, 0, 1)
