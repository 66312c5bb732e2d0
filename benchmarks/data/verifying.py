"""Decodes every image of a source once, so that a damaged one is found before a run starts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import PIL
import torch

from cl_adapters.benchmarks.data.images import ImageSource, LabelledImages
from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.images.decoding import noted

__all__ = ["verified", "verify_images"]

_BATCH: Final = 64
# Where a cache keeps what decoding did to images, by Pillow's version.
_DECODED: Final = f"notes-{PIL.__version__}"


def verified(
    source: ImageSource,
    on_image: Callable[[], None] | None = None,
    cache: FeatureCache | None = None,
) -> ImageSource:
    """Returns a source whose `reading` says what decoding did to its images; see `verify_images`.

    Raises:
        InputError: At the first image that cannot be decoded; the text names it.
    """
    notes = verify_images(source, on_image, cache)
    return replace(source, reading=replace(source.reading, images=notes))


def verify_images(
    source: ImageSource,
    on_image: Callable[[], None] | None = None,
    cache: FeatureCache | None = None,
) -> dict[str, int]:
    """Decodes every image once, so that a damaged one is found before a run starts.

    Args:
        source: The source to check.
        on_image: Called after each image, for a progress bar.
        cache: Where it is kept which images have been decoded before; None decodes all.

    Returns:
        How many images each of `decoding.NOTES` holds for.

    Raises:
        InputError: At the first image that cannot be decoded; the text names it.
    """
    on_image = on_image or (lambda: None)
    notes: list[int] = []
    for images in (source.train, source.test):
        for start in range(0, len(images), _BATCH):
            part = range(start, min(start + _BATCH, len(images)))
            if cache is None:
                rows = _decode(images, part)
            else:
                keys = [images.digests[index] for index in part]
                rows = cache.rows(
                    f"{_DECODED}{getattr(images.store, 'max_pixels', None) or ''}",
                    keys,
                    lambda places: _decode(images, [part[place] for place in places]),  # noqa: B023 - called at once
                )
            notes += rows[:, 0].tolist()
            for _ in part:
                on_image()
    if cache is not None:
        cache.flush()
    return noted(notes)


def _decode(images: LabelledImages, indices: Sequence[int]) -> torch.Tensor:
    notes = [images.read_with_notes(index)[1] for index in indices]
    return torch.tensor(notes, dtype=torch.uint8).reshape(len(indices), 1)
