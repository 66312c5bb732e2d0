"""A part of the images, for a quick look before the whole is run."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cl_adapters.benchmarks.data.images import ImageSource, LabelledImages
from cl_adapters.benchmarks.data.reading import counted

__all__ = ["quick_look"]

Indices = npt.NDArray[np.int64]


def quick_look(
    source: ImageSource,
    max_classes: int | None = None,
    max_images: int | None = None,
    *,
    is_tested: bool = True,
) -> ImageSource:
    """Returns a source with fewer classes and images, the same for all seeds.

    No image is read. The classes are the first in the source's order, so that every class order
    orders the same ones; the images of a class are spread evenly from its first to its last. What
    is left out is said in `reading`.

    Args:
        source: All images.
        max_classes: Most classes, at least 1; None keeps all.
        max_images: Most images of each class, at least 1, in train and in test; None keeps all.
        is_tested: Whether the test images will be looked at; if not, they are not counted in
            `reading`.
    """
    if max_classes is None and max_images is None:
        return source
    classes = source.classes[:max_classes]
    train, test = (_part(each, classes, max_images) for each in (source.train, source.test))
    kept = f"{len(classes)} of {counted(len(source.classes), 'class', 'classes')}"
    kept += f", {len(train):,} of {len(source.train):,} train images"
    if is_tested:
        kept += f", {len(test):,} of {len(source.test):,} test images"
    reading = replace(source.reading, quick_look=kept)
    return replace(source, classes=classes, train=train, test=test, reading=reading)


def _part(images: LabelledImages, classes: tuple[str, ...], most: int | None) -> LabelledImages:
    members = [np.flatnonzero(images.targets == label) for label in range(len(classes))]
    kept = np.sort(np.concatenate([_spread(each, most) for each in members]))
    return replace(images.take(kept), classes=classes)


def _spread(places: Indices, most: int | None) -> Indices:
    if most is None or len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, most).round().astype(np.int64)]
