"""Folders of tiny photos that grow month by month."""

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

NAMES: Final = ("ant", "bee", "cat", "dog", "elk", "fox")
# What each month brings: classes, and the first number of their images.
MONTHS: Final = {"2026-01": ((0, 1, 2, 3), 0), "2026-02": ((4, 5), 0), "2026-03": ((1, 5), 20)}


def draw(path: Path, label: int, number: int) -> None:
    """Noise with a bright stripe whose place is the class."""
    generator = np.random.default_rng([label, number])
    pixels = generator.integers(0, 90, (12, 12, 3), dtype=np.uint8)
    pixels[2 * label : 2 * label + 2] += 150
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_months(folder: Path) -> Path:
    """Writes each month into a folder of its own, and all as experiences of one folder, `all`."""
    for month, (labels, start) in MONTHS.items():
        for label in labels:
            for number in range(start, start + 7):
                split = "train" if number - start < 5 else "test"
                inner = f"{NAMES[label]}/{number}.png"
                draw(folder / month / split / inner, label, number)
                draw(folder / "all" / split / month / inner, label, number)
    return folder
