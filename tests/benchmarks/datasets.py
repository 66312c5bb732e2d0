"""Tiny data sets as parquet files and in memory, whose images all differ."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cl_adapters.benchmarks.data.sources import ImageSource, array_source

__all__ = ["drawn", "in_memory", "written"]


def drawn(hue: int, label: int, number: int) -> np.ndarray:
    """Returns an image, uint8 (8, 8, 3): hue is that of its data set, its stripes of its class."""
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., hue % 3] = 60 + 50 * (hue // 3)
    image[:: 2 + label % 3, :: 1 + label // 3] = 255 - 20 * label
    image[0, 0] = (hue, label, number)
    return image


def in_memory(name: str, hue: int, classes: int, train: int = 4, test: int = 2) -> ImageSource:
    """Returns a data set with classes `0`, `1`, … and so many images of each."""

    def side(numbers: range) -> tuple[np.ndarray, list[int]]:
        pairs = [(label, number) for label in range(classes) for number in numbers]
        images = np.stack([drawn(hue, label, number) for label, number in pairs])
        return images, [label for label, _ in pairs]

    return array_source(name, side(range(train)), side(range(train, train + test)))


def written(
    path: Path, hue: int, classes: int, train: int = 4, test: int = 2, called: str = "{}"
) -> Path:
    """Writes the same as a parquet file; every other image is in the domain `ink`, others `chalk`."""
    images, labels, splits, domains = [], [], [], []
    for label in range(classes):
        for number in range(train + test):
            stream = io.BytesIO()
            Image.fromarray(drawn(hue, label, number)).save(stream, "PNG")
            images.append(stream.getvalue())
            labels.append(called.format(label))
            splits.append("train" if number < train else "test")
            domains.append(("ink", "chalk")[number % 2])
    columns = {"image": images, "label": labels, "split": splits, "domain": domains}
    pq.write_table(pa.table(columns), path)
    return path
