"""A source of stripes for shift streams."""

import numpy as np

from cl_adapters.benchmarks.data.sources import ImageSource, array_source


def make_source(counts: list[int]) -> ImageSource:
    """A source with so many train images of each class, in random order, and half as many test ones."""
    generator = np.random.default_rng(sum(counts))

    def side(sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
        targets = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
        pixels = generator.integers(0, 90, (len(targets), 8, 8, 3), dtype=np.uint8)
        for image, target in zip(pixels, targets, strict=True):
            image[target % 8] += 150
        return pixels, targets

    return array_source("rows", side(counts), side([-(-count // 2) for count in counts]))
