"""Several data sets as one source, whose classes say which of them they are of.

A class is called by its data set and its own name, `signs/00007`: the same name in two data sets is
two classes. Classes and images stand in the order of the data sets, each in its own order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, combinations

import numpy as np

from cl_adapters.benchmarks.data.images import ImageSource, LabelledImages
from cl_adapters.benchmarks.data.reading import LeftOut, Reading
from cl_adapters.benchmarks.data.stores import PickedStore
from cl_adapters.errors import InputError, unknown_name

__all__ = ["DataSets", "join_datasets", "of_domain"]


@dataclass(frozen=True, eq=False, kw_only=True)
class DataSets(ImageSource):
    """The images of several data sets.

    Attributes:
        parts: The data sets, each under its name and with its own names and numbers of classes.
    """

    parts: tuple[ImageSource, ...]

    @property
    def starts(self) -> list[int]:
        """Number here of the first class of each data set."""
        return [0, *accumulate(len(part.classes) for part in self.parts[:-1])]

    def describe(self) -> dict[str, object]:
        """Returns what of the source belongs into a run's fingerprint."""
        said = [{"name": part.name, **part.describe()} for part in self.parts]
        return {**super().describe(), "datasets": said}


def join_datasets(parts: Sequence[ImageSource]) -> DataSets:
    """Returns one source over the images of several data sets.

    Args:
        parts: The data sets, at least two, under different names without `/`.

    Raises:
        InputError: If a data set has one class, its images are none in three channels, or an image
            is in two of them.

    Example:
        >>> from cl_adapters.benchmarks.data.sources import array_source
        >>> grey = np.arange(8, dtype=np.uint8).repeat(4).reshape(4, 2, 2, 2)
        >>> signs = array_source("signs", (grey[0], [0, 1]), (grey[1], [0, 1]))
        >>> digits = array_source("digits", (grey[2], [0, 1]), (grey[3], [0, 1]))
        >>> join_datasets([signs, digits]).classes
        ('signs/0', 'signs/1', 'digits/0', 'digits/1')
    """
    for part in parts:
        _check(part)
    _check_apart(parts)
    classes = tuple(f"{part.name}/{name}" for part in parts for name in part.classes)
    train, test = (
        _joined([getattr(part, split) for part in parts], classes) for split in ("train", "test")
    )
    names = "-".join(part.name for part in parts)
    short = f"{parts[0].name}-and-{len(parts) - 1}-more"  # runs lie in a folder of that name
    return DataSets(
        names if len(names) <= 60 else short,
        classes,
        train,
        test,
        _reading(parts),
        parts=tuple(parts),
    )


def of_domain(source: ImageSource, domain: str) -> ImageSource:
    """Returns the images of one domain, with all classes.

    Args:
        source: Images with domains.
        domain: Name of the domain.

    Raises:
        InputError: If there are no domains, or none of that name, or a class has no images in it.
    """
    sides = source.train, source.test
    if any(images.domains is None for images in sides):
        raise InputError(
            f"data of domain {domain!r} must have a text column 'domain', {source.name!r} has none"
        )
    names = [np.asarray(images.domains) for images in sides]
    known = sorted({str(name) for each in names for name in each} - {""})
    if domain not in known:
        raise unknown_name(f"domain of {source.name!r}", domain, known)
    train, test = (
        images.take(np.flatnonzero(each == domain))
        for images, each in zip(sides, names, strict=True)
    )
    return replace(source, train=train, test=test)


def _check(part: ImageSource) -> None:
    if len(part.classes) < 2:
        raise InputError(f"data set {part.name!r} must hold at least two classes, got 1")
    pixels = part.train.read(0)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(
            f"images of data set {part.name!r} must be uint8 in three channels, (H, W, 3), got "
            f"{pixels.dtype} of shape {pixels.shape}"
        )


def _check_apart(parts: Sequence[ImageSource]) -> None:
    found = [{*part.train.digests, *part.test.digests} for part in parts]
    for (one, ours), (other, theirs) in combinations(zip(parts, found, strict=True), 2):
        shared = ours & theirs
        if shared:
            sides = (other.train, other.test)
            example = next(
                images.name(index)
                for images in sides
                for index, digest in enumerate(images.digests)
                if digest in shared
            )
            raise InputError(
                f"data sets {one.name!r} and {other.name!r} must share no image, got {len(shared)} "
                f"that both have, such as {example}"
            )


def _joined(images: Sequence[LabelledImages], classes: tuple[str, ...]) -> LabelledImages:
    starts = [0, *accumulate(len(each.classes) for each in images)]
    picks = [(each.store, row) for each in images for row in each.rows.tolist()]
    targets = [each.targets + start for each, start in zip(images, starts, strict=False)]
    joined = LabelledImages(
        PickedStore(picks), np.arange(len(picks)), np.concatenate(targets), classes
    )
    vars(joined)["digests"] = tuple(digest for each in images for digest in each.digests)
    return joined


def _reading(parts: Sequence[ImageSource]) -> Reading:
    def said(name: str) -> str:
        texts = ((part.name, getattr(part.reading, name)) for part in parts)
        return "; ".join(f"{name}: {text}" for name, text in texts if text)

    left = (
        LeftOut(f"{part.name}/{x.path}", x.reason) for part in parts for x in part.reading.left_out
    )
    return Reading(layout=said("layout"), left_out=tuple(left), quick_look=said("quick_look"))
