"""Labelled images that stay encoded until they are read, and the source that holds two such sets.

A set is a choice of a store's rows with labels, so that the train and test sets of one file share
its bytes.
"""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cl_adapters.benchmarks.data.reading import (
    AS_IT_IS,
    OTHER_SPLIT,
    LeftOut,
    Reading,
    ReadOptions,
    refuse_options,
)
from cl_adapters.benchmarks.data.stores import (
    ArrowStore,
    FileStore,
    ImageStore,
    PickedStore,
    Pixels,
)
from cl_adapters.errors import InputError

__all__ = [
    "ImageSource",
    "LabelledImages",
    "natural_key",
    "split_off",
    "split_table",
]

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """A set of images with labels, decoded when read.

    Attributes:
        store: Where the images are kept.
        rows: Rows of the store that belong to the set, (N,) int64.
        targets: Index of each image's class in `classes`, (N,) int64.
        classes: Class names.
        domains: Name of each image's domain, (N,) text, empty where unknown; None without domains.
    """

    store: ImageStore
    rows: Indices
    targets: Indices
    classes: tuple[str, ...]
    domains: npt.NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Pixels:
        """Returns an image as uint8 (H, W, 3).

        Raises:
            InputError: If the image cannot be decoded; the text names it.
        """
        return self.store.pixels(int(self.rows[index]))

    def read_with_notes(self, index: int) -> tuple[Pixels, int]:
        """Returns an image as `read` does, and which of `decoding.NOTES` hold for it."""
        row = int(self.rows[index])
        if isinstance(self.store, FileStore | ArrowStore | PickedStore):
            return self.store.decoded(row)
        return self.store.pixels(row), 0

    def name(self, index: int) -> str:
        """Returns how to call an image in a message: its path or its row."""
        return self.store.name(int(self.rows[index]))

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """SHA-256 of the encoded bytes of each image; equal images have equal digests."""
        return tuple(hashlib.sha256(self.store.encoded(int(row))).digest() for row in self.rows)

    def take(self, indices: Indices) -> "LabelledImages":
        """Returns the set of some of the images, with what is known of their digests."""
        domains = None if self.domains is None else self.domains[indices]
        taken = LabelledImages(
            self.store, self.rows[indices], self.targets[indices], self.classes, domains
        )
        if "digests" in vars(self):
            vars(taken)["digests"] = tuple(self.digests[index] for index in indices.tolist())
        return taken

    def checksum(self) -> str:
        """Returns a SHA-256 over images and class names that does not depend on their order."""
        names = [f"{len(name)}:{name}:".encode() for name in self.classes]
        pairs = zip(self.targets.tolist(), self.digests, strict=True)
        samples = sorted(hashlib.sha256(names[target] + image).digest() for target, image in pairs)
        return hashlib.sha256(b"".join(samples)).hexdigest()


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Train and test images over the same classes.

    Attributes:
        name: Name for reports and run directories.
        classes: Class names in natural order; targets index into them.
        train: Images to learn from.
        test: Images to evaluate on.
        reading: What the reader took the data for, and what it left out.
        num_learned: How many of the classes, the first ones, were learned before and need no images
            any more; all others have some on both sides.
    """

    name: str
    classes: tuple[str, ...]
    train: LabelledImages
    test: LabelledImages
    reading: Reading = field(default=Reading(), repr=False)
    num_learned: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if not self.classes:
            raise InputError(f"source {self.name!r} must hold at least one class, got none")
        for name, count in Counter(self.classes).items():
            # Python maps bytes that are no UTF-8 to lone surrogates, which no record could store.
            if not name or any("\ud800" <= char <= "\udfff" for char in name):
                raise InputError(f"class name must be non-empty UTF-8 text, got {name!r}")
            if count > 1:
                raise InputError(f"class names must differ from each other, got {name!r} {count} x")
        for split, images in (("train", self.train), ("test", self.test)):
            counts = np.bincount(images.targets, minlength=len(self.classes))
            for index in np.flatnonzero(counts[self.num_learned :] == 0) + self.num_learned:
                raise InputError(
                    f"class {self.classes[index]!r} of {self.name!r} must have at least one "
                    f"{split} image, got 0"
                )

    def describe(self) -> dict[str, object]:
        """Returns what of the source belongs into a run's fingerprint."""
        return {
            "classes": len(self.classes),
            "train": {"images": len(self.train), "sha256": self.train.checksum()},
            "test": {"images": len(self.test), "sha256": self.test.checksum()},
        }


def natural_key(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """Returns a sort key that puts `2` before `10`.

    Example:
        >>> sorted(["10", "b2", "2", "b10"], key=natural_key)
        ['2', '10', 'b2', 'b10']
    """
    # Splitting by digits puts text at even and numbers at odd places, so that keys compare. A
    # number is its length and digits: Python turns no text of some thousand digits into an int.
    parts = re.split(r"([0-9]+)", name)
    bare = [part.lstrip("0") if place % 2 else part for place, part in enumerate(parts)]
    keys = ((len(part), part) if place % 2 else (0, part) for place, part in enumerate(bare))
    return tuple(keys), name


def split_off(
    images: LabelledImages, share: float, seed: int = 0
) -> tuple[LabelledImages, LabelledImages]:
    """Splits a set into train and test by class.

    Each class is ranked by the digest of seed and image, so the same images give the same split
    under any file name and on any machine.

    Args:
        images: The images to split.
        share: Share of each class that goes to test, in (0, 1); at least one image goes to each.
        seed: Changes the ranking.

    Returns:
        The train and the test images, each in the order of `images`.

    Raises:
        InputError: If the share is out of range or a class has fewer than two images.
    """
    if not 0 < share < 1:
        raise InputError(f"test share must lie between 0 and 1, got {share}")
    salt = f"{seed}:".encode()
    keys = [hashlib.sha256(salt + image).digest() for image in images.digests]
    is_test = np.zeros(len(images), dtype=bool)
    for target, name in enumerate(images.classes):
        members = np.flatnonzero(images.targets == target).tolist()
        if len(members) < 2:
            raise InputError(
                f"class {name!r} must have at least two images to be split into train and test, "
                f"got {len(members)}"
            )
        count = min(max(1, round(share * len(members))), len(members) - 1)
        is_test[sorted(members, key=lambda index: keys[index])[:count]] = True
    return images.take(np.flatnonzero(~is_test)), images.take(np.flatnonzero(is_test))


def split_table(
    images: LabelledImages,
    splits: npt.NDArray[np.str_] | None,
    share: float,
    path: Path,
    options: ReadOptions = AS_IT_IS,
) -> tuple[LabelledImages, LabelledImages, str, tuple[LeftOut, ...]]:
    """Splits the images of a table as it says, or by their content where it says nothing.

    Args:
        images: The images, a row each.
        splits: Each row's split, (N,): `train`, `test` or a name of a validation set; or None.
        share: Of each class that goes to test where the table says nothing; see `split_off`.
        path: The table, for messages.
        options: What the user says of it.

    Returns:
        The train and the test images, what was done in words, and the rows of other splits.

    Raises:
        InputError: If there are several validation sets and no test set, or not the set that the
            user wants to test on.
    """
    if splits is None:
        refuse_options(options, ("test_set",), f"images without a split in {str(path)!r}")
        return *split_off(images, share), "split by content", ()
    tested = _tested(splits, path, options)
    train, test = (images.take(np.flatnonzero(splits == name)) for name in ("train", tested))
    others = np.flatnonzero((splits != "train") & (splits != tested))
    left = tuple(LeftOut(f"row {row}", OTHER_SPLIT) for row in others)
    return train, test, f"test set {tested!r}", left


def _tested(splits: npt.NDArray[np.str_], path: Path, options: ReadOptions) -> str:
    # The test set, or the one validation set.
    tests = sorted({str(each) for each in splits} - {"train"})
    if options.test_set is not None:
        known = tests
        tests = [each for each in known if (each == "test") is (options.test_set == "test")]
        if not tests:
            raise InputError(
                f"{str(path)!r} must hold the {options.test_set} set that `test_set` names, got "
                f"{', '.join(['train', *known])}"
            )
    if "test" in tests or not tests:
        return "test"
    if len(tests) > 1:
        raise InputError(f"{str(path)!r} must hold one test set, got {', '.join(tests)}")
    return tests[0]
