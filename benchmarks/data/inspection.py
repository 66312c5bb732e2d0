"""What was seen of images before a run, and the tables that show it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

__all__ = ["Finding", "Inspection", "Level", "Look", "images_by_class"]

EXAMPLES: Final = 3
SHOWN_CLASSES: Final = 30

Level = Literal["stops", "distorts", "note"]
Table = list[list[str]]


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen of one image.

    Attributes:
        split: `train` or `test`; empty where the run would not come to make a split.
        label: Name of its class.
        name: Path or row.
        width: Width in pixels, upright; 0 if it cannot be read.
        height: Height in pixels, upright; 0 if it cannot be read.
        mode: Pillow's mode as stored; empty if it cannot be read.
        digest: SHA-256 of size and pixels; empty if it cannot be read.
        error: Why it cannot be read, else empty.
        notes: What decoding did, the bits of `decoding.NOTES`.
    """

    split: str
    label: str
    name: str
    width: int = 0
    height: int = 0
    mode: str = ""
    digest: bytes = b""
    error: str = ""
    notes: int = 0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of thing to know.

    Attributes:
        level: `stops` a run, `distorts` its results, or a mere note.
        what: What was found.
        examples: Where, at least one name.
        action: What a run does about it.
    """

    level: Level
    what: str
    examples: tuple[str, ...]
    action: str

    def row(self) -> list[str]:
        """Returns the row of the table of findings."""
        more = len(self.examples) - EXAMPLES
        shown = ", ".join(self.examples[:EXAMPLES]) + (f" and {more} more" if more > 0 else "")
        return [self.level, self.what, shown, self.action]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """All that was seen of a folder or file.

    Attributes:
        name: The path as given.
        classes: Names of the classes in natural order, empty ones too.
        looks: What was seen of each image.
        findings: What to know, the worst first.
        layout: What the reader took the folder for; empty where there is no choice.
    """

    name: str
    classes: tuple[str, ...]
    looks: tuple[Look, ...]
    findings: tuple[Finding, ...]
    layout: str = ""

    @property
    def is_good(self) -> bool:
        """Whether nothing would stop a run or distort its results."""
        return all(finding.level == "note" for finding in self.findings)

    def summary(self) -> Table:
        """Returns counts, sizes and modes as a table."""
        readable = [look for look in self.looks if not look.error]
        splits = Counter(look.split or "no split" for look in self.looks)
        modes = Counter(look.mode for look in readable)
        return [
            ["what", "found"],
            ["classes", str(len(self.classes))],
            ["images", _counts(splits) or "none"],
            ["images a class", _spread([*images_by_class(self.looks, self.classes).values()])],
            ["width", _spread([look.width for look in readable])],
            ["height", _spread([look.height for look in readable])],
            ["modes", _counts(modes) or "none"],
            *([["layout", self.layout]] if self.layout else []),
        ]

    def class_table(self) -> Table:
        """Returns images by class: all of them, or the smallest where there are many."""
        columns = sorted({look.split or "images" for look in self.looks}, reverse=True)
        cells = Counter((look.label, look.split or "images") for look in self.looks)
        totals = images_by_class(self.looks, self.classes)
        names = list(self.classes)
        if len(names) > SHOWN_CLASSES:
            names = sorted(names, key=lambda name: totals[name])[:SHOWN_CLASSES]
        left = len(self.classes) - len(names)
        heading = f"class (the smallest; {left} more)" if left else "class"
        body = [[name, *(str(cells[name, column]) for column in columns)] for name in names]
        return [[heading, *columns], *body]

    def finding_table(self) -> Table:
        """Returns the findings, the worst first."""
        return [["level", "finding", "where", "what a run does"], *map(Finding.row, self.findings)]


def images_by_class(looks: Sequence[Look], classes: Sequence[str]) -> dict[str, int]:
    """Returns the images of each class, in the order of the classes."""
    counts = Counter(look.label for look in looks)
    return {name: counts[name] for name in classes}


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counter.most_common())


def _spread(values: Sequence[int]) -> str:
    if not values:
        return "none"
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}, median {median(values):g}"
