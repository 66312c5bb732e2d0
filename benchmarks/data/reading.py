"""How data are to be read, and what was read of them: the layout, and what was left out and why."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from cl_adapters.errors import InputError

__all__ = [
    "AS_IT_IS",
    "LeftOut",
    "ReadOptions",
    "Reading",
    "TestSet",
    "counted",
    "pixels_of",
    "refuse_options",
    "test_set_of",
]

# What data may be tested on.
TestSet = Literal["test", "validation"]

# Reasons for which a file is no image of a run.
HIDDEN: Final = "hidden"
LITTER: Final = "left by a program (__MACOSX and the like)"
NO_IMAGE: Final = "no image by the name"
FOREIGN: Final = "an image of a kind that is not read"
BROKEN: Final = "a link that leads nowhere"
LOOP: Final = "a link to a folder that is read already"
SPECIAL: Final = "neither file nor folder"
BESIDE: Final = "an image beside the class folders"
OTHER_SPLIT: Final = "an image of another split"
UNLISTED: Final = "an image that the table does not name"
# Those by which a user may lose images without knowing.
LOSSES: Final = (FOREIGN, BROKEN, BESIDE, UNLISTED)


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What the user says of how data are to be read; None leaves it to the reader.

    Attributes:
        class_depth: How many folders down the classes lie, at least 1.
        domain_folders: Whether the classes lie in folders that are domains; True or None.
        image_column: Name of a table's column of images.
        label_column: Name of a table's column of labels.
        max_pixels: Most pixels of an image, width times height.
        test_set: Which set to test on where the data have both.
    """

    class_depth: int | None = None
    domain_folders: bool | None = None
    image_column: str | None = None
    label_column: str | None = None
    max_pixels: int | None = None
    test_set: TestSet | None = None


AS_IT_IS: Final = ReadOptions()


@dataclass(frozen=True)
class LeftOut:
    """A file that is no image of a run.

    Attributes:
        path: Where it lies, relative to the data.
        reason: Why it is left out.
    """

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was read of data.

    Attributes:
        layout: What the reader took the data for; empty for sources that have no layout.
        left_out: Files that are no image of the run.
        quick_look: What was kept of the data for a quick look; empty where that is all.
        images: How many images each of `decoding.NOTES` holds for, once they were decoded.
    """

    layout: str = ""
    left_out: tuple[LeftOut, ...] = field(default=(), repr=False)
    quick_look: str = ""
    images: Mapping[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Returns the number of files left out by reason, the most frequent first."""
        return dict(Counter(each.reason for each in self.left_out).most_common())

    def describe(self) -> dict[str, object]:
        """Returns what of it stands in a run's record; no layout for a source without one."""
        read: dict[str, object] = {}
        if self.layout:
            read = {"layout": self.layout, "left_out": self.counts()}
        if self.quick_look:
            read["quick_look"] = self.quick_look
        return {**read, "images": dict(self.images)} if self.images else read


def pixels_of(megapixels: float | None) -> int | None:
    """Returns a limit in pixels; None stays None.

    Raises:
        InputError: If it is no finite number above 0.
    """
    if megapixels is None:
        return None
    if not (math.isfinite(megapixels) and megapixels > 0):
        raise InputError(f"`max_megapixels` must be a finite number above 0, got {megapixels}")
    return max(1, int(megapixels * 10**6))


def test_set_of(text: str | None) -> TestSet | None:
    """Returns the set that a text names; None stays None.

    Raises:
        InputError: If it names none.
    """
    known: dict[str | None, TestSet | None] = {
        None: None, "test": "test", "validation": "validation",
    }  # fmt: skip
    if text not in known:
        raise InputError(f"`test_set` must be test or validation, got {text!r}")
    return known[text]


def refuse_options(options: ReadOptions, keys: Iterable[str], what: str) -> None:
    """Refuses options that mean nothing for some data.

    Raises:
        InputError: If one of these keys was given.
    """
    for key in keys:
        if getattr(options, key) is not None:
            name = "max_megapixels" if key == "max_pixels" else key
            raise InputError(f"recipe key `{name}` must go with other data, got {what}")


def counted(number: int, one: str, many: str = "") -> str:
    """Returns a number with its noun.

    Example:
        >>> counted(1, "class", "classes"), counted(2, "file")
        ('1 class', '2 files')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
