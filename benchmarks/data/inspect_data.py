"""Looks at images before a run does: what is there, what is wrong, what a run would do about it.

Duplicates are found by the decoded pixels, upright and in RGB: a copy under another name or in
another lossless format counts, a copy compressed once more does not. A folder is read leniently,
so that all its faults are listed at once where a run would end at the first.
"""

import hashlib
import io
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final, Literal

from PIL import Image

from cl_adapters.benchmarks.data.images import ImageSource, LabelledImages, natural_key
from cl_adapters.benchmarks.data.sources import (
    SOURCES,
    SUFFIXES,
    class_folders,
    image_paths,
    open_source,
    split_folders,
)
from cl_adapters.benchmarks.data.stores import FORMATS, FileStore, decode_image
from cl_adapters.benchmarks.data.transforms import MAX_RATIO
from cl_adapters.errors import InputError

__all__ = ["Finding", "Inspection", "Look", "inspect_data"]

# Fewer images than these and the accuracy of a class says little.
TINY_TRAIN: Final = 5
TINY_TEST: Final = 2
SMALL_SIDE: Final = 8
EXAMPLES: Final = 3
SHOWN_CLASSES: Final = 30
# Files that people take for images and that no reader here opens.
FOREIGN: Final = (
    ".arw", ".avif", ".cr2", ".dng", ".heic", ".heif", ".jfif", ".jp2", ".nef", ".psd", ".svg",
)  # fmt: skip

# What a file is that a reader here would open and does not.
OUTSIDE: Final = "beside the class folders, or links to elsewhere"

Level = Literal["stops", "distorts", "note"]
Table = list[list[str]]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image before it is read: where it belongs, what to call it, and its bytes."""

    split: str
    label: str
    name: str
    load: Callable[[], bytes | memoryview]


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
    """

    split: str
    label: str
    name: str
    width: int = 0
    height: int = 0
    mode: str = ""
    digest: bytes = b""
    error: str = ""


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
    """

    name: str
    classes: tuple[str, ...]
    looks: tuple[Look, ...]
    findings: tuple[Finding, ...]

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
            ["images a class", _spread([*_by_class(self.looks, self.classes).values()])],
            ["width", _spread([look.width for look in readable])],
            ["height", _spread([look.height for look in readable])],
            ["modes", _counts(modes) or "none"],
        ]

    def class_table(self) -> Table:
        """Returns images by class: all of them, or the smallest where there are many."""
        columns = sorted({look.split or "images" for look in self.looks}, reverse=True)
        cells = Counter((look.label, look.split or "images") for look in self.looks)
        totals = _by_class(self.looks, self.classes)
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


def inspect_data(path: Path, on_image: Callable[[int], None] | None = None) -> Inspection:
    """Reads every image of a folder or parquet file and returns what is to know about it.

    Args:
        path: As for `open_source`.
        on_image: Called with the number of all images, once for each one read.

    Raises:
        InputError: If the path does not exist or is neither.
    """
    source, refusal = _open(path)
    if source is None and not path.is_dir():
        if not path.exists():
            raise InputError(refusal)
        return Inspection(name=str(path), classes=(), looks=(), findings=(_refused(refusal),))
    is_files = source is None or isinstance(source.train.store, FileStore)
    entries = _files(path, source) if is_files else _rows(source)
    looks: list[Look] = []
    for entry in entries:
        looks.append(_look(entry))
        if on_image is not None:
            on_image(len(entries))
    classes = _classes(path) if is_files or source is None else source.classes
    findings = [*_stopping(looks, classes, refusal), *_distorting(looks, classes)]
    seen = {look.name for look in looks}
    findings += [*_noted(looks), *(_passed_over(path, seen) if is_files else ())]
    order: tuple[Level, ...] = ("stops", "distorts", "note")
    return Inspection(
        name=str(path),
        classes=tuple(classes),
        looks=tuple(looks),
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.level))),
    )


def _open(path: Path) -> tuple[ImageSource | None, str]:
    """Returns what a run would open, or the sentence that it would end with."""
    if str(path) in SOURCES and not path.exists():
        return open_source(str(path)), ""
    try:
        return open_source(path), ""
    except InputError as error:
        return None, str(error)


def _refused(sentence: str) -> Finding:
    return Finding(
        level="stops", what="not usable as it is", examples=(sentence,), action="ends with this"
    )


def _files(root: Path, source: ImageSource | None) -> list[Entry]:
    inside = root.resolve()
    made = _made_split(source)
    entries = []
    for split in split_folders(root) or [""]:
        folder = root / split
        for label in class_folders(folder):
            for path in sorted(image_paths(folder / label, inside), key=natural_key):
                place = folder / label / path
                name = place.relative_to(root).as_posix()
                side = made.get(name, "") if not split else "train" if split == "train" else "test"
                entries.append(Entry(split=side, label=label, name=name, load=place.read_bytes))
    return entries


def _made_split(source: ImageSource | None) -> dict[str, str]:
    # Where the folder holds no split, the run's own, which depends on the content alone.
    sides = {"train": source.train, "test": source.test} if source else {}
    return {
        images.store.paths[row]: split
        for split, images in sides.items()
        if isinstance(images.store, FileStore)
        for row in images.rows.tolist()
    }


def _rows(source: ImageSource | None) -> list[Entry]:
    sides = (("train", source.train), ("test", source.test)) if source else ()
    return [entry for split, images in sides for entry in _entries(split, images)]


def _entries(split: str, images: LabelledImages) -> Iterator[Entry]:
    for row, target in zip(images.rows.tolist(), images.targets.tolist(), strict=True):
        yield Entry(
            split=split,
            label=images.classes[target],
            name=f"row {row}",
            load=lambda row=row: images.store.encoded(row),  # type: ignore[misc]
        )


def _classes(root: Path) -> list[str]:
    names = {name for split in split_folders(root) or [""] for name in class_folders(root / split)}
    return sorted(names, key=natural_key)


def _look(entry: Entry) -> Look:
    place = Look(split=entry.split, label=entry.label, name=entry.name)
    try:
        data = entry.load()
        pixels = decode_image(data, repr(entry.name))
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            mode = image.mode
    except (InputError, OSError) as error:
        return replace(place, error=str(error))
    height, width = pixels.shape[:2]
    sha = hashlib.sha256(f"{height}x{width}:".encode())
    sha.update(pixels.data)
    return replace(place, width=width, height=height, mode=mode, digest=sha.digest())


def _stopping(looks: Sequence[Look], classes: Sequence[str], refusal: str) -> Iterator[Finding]:
    damaged = tuple(f"{look.name} ({_reason(look)})" for look in looks if look.error)
    if damaged:
        yield Finding(
            level="stops", what=f"{len(damaged)} unreadable images", examples=damaged,
            action="ends at the first of them, before anything is written",
        )  # fmt: skip
    totals = _by_class(looks, classes)
    empty = tuple(name for name in classes if not totals[name])
    if empty:
        yield Finding(
            level="stops", what=f"{len(empty)} empty classes", examples=empty,
            action="ends: each class must have images in train and in test",
        )  # fmt: skip
    for split in ("train", "test"):
        counts = Counter(look.label for look in looks if look.split == split)
        lacking = tuple(name for name in classes if totals[name] and not counts[name])
        if lacking and any(look.split for look in looks):
            yield Finding(
                level="stops", what=f"{len(lacking)} classes without {split} images",
                examples=lacking, action="ends: each class must have images in train and in test",
            )  # fmt: skip
    single = tuple(name for name in classes if totals[name] == 1)
    if single and not any(look.split for look in looks):
        yield Finding(
            level="stops", what=f"{len(single)} classes of one image", examples=single,
            action="ends: a class must have two images to be split into train and test",
        )  # fmt: skip
    if refusal:
        yield _refused(refusal)


def _reason(look: Look) -> str:
    # The sentence without the name, which stands before it.
    return look.error.rpartition(f"{look.name!r} ")[2]


def _distorting(looks: Sequence[Look], classes: Sequence[str]) -> Iterator[Finding]:
    for split, least in (("train", TINY_TRAIN), ("test", TINY_TEST)):
        counts = Counter(look.label for look in looks if look.split == split)
        tiny = tuple(f"{name} ({counts[name]})" for name in classes if 0 < counts[name] < least)
        if tiny:
            yield Finding(
                level="distorts",
                what=f"{len(tiny)} classes with fewer than {least} {split} images",
                examples=tiny,
                action="uses them as they are; their accuracy says little",
            )
    copies = _copies(looks)
    across = tuple(_pair(group) for group in copies if len({look.split for look in group}) > 1)
    if across:
        yield Finding(
            level="distorts", what=f"{len(across)} images both in train and in test, by pixels",
            examples=across, action="uses both; accuracy comes out too high",
        )  # fmt: skip
    torn = tuple(_pair(group) for group in copies if len({look.label for look in group}) > 1)
    if torn:
        yield Finding(
            level="distorts", what=f"{len(torn)} images in more than one class, by pixels",
            examples=torn, action="uses each with its own label; one of them is wrong",
        )  # fmt: skip


def _noted(looks: Sequence[Look]) -> Iterator[Finding]:
    groups = (
        (
            "images with a copy in the same class and set, by pixels",
            [_pair(group) for group in _copies(looks) if _is_one_place(group)],
            "uses each; they weigh more",
        ),
        (
            f"images with a side under {SMALL_SIDE} pixels",
            [look.name for look in looks if not look.error and _short(look) < SMALL_SIDE],
            "enlarges them to the network's input",
        ),
        (
            f"images more than {MAX_RATIO} times as long as wide",
            [look.name for look in looks if _long(look) > MAX_RATIO * _short(look)],
            "keeps the middle only",
        ),
        (
            "grey or palette images",
            [look.name for look in looks if look.mode in ("1", "L", "P")],
            "turns them into RGB",
        ),
        (
            "images with an alpha channel",
            [look.name for look in looks if look.mode in ("LA", "RGBA")],
            "drops it",
        ),
    )
    for what, names, action in groups:
        if names:
            examples = tuple(names)
            yield Finding(
                level="note", what=f"{len(names)} {what}", examples=examples, action=action
            )


def _passed_over(root: Path, seen: Collection[str]) -> Iterator[Finding]:
    """Yields what lies in a folder and is no image of a run, by kind."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for where, folders, files in os.walk(root):
        linked = [name for name in folders if Path(where, name).is_symlink()]
        hidden = [name for name in folders if name.startswith(".")]
        folders[:] = sorted(set(folders) - set(hidden))
        for name in [*files, *linked, *hidden]:
            path = Path(where, name).relative_to(root).as_posix()
            if path not in seen:
                kinds[_kind(Path(where, name))].append(path)
    for kind, names in sorted(kinds.items()):
        yield Finding(
            level="distorts" if kind in (OUTSIDE, *FOREIGN) else "note",
            what=f"{len(names)} files that are not read: {kind}",
            examples=tuple(sorted(names, key=natural_key)),
            action=f"passes over them; it reads {' '.join(SUFFIXES)} in class folders",
        )


def _kind(path: Path) -> str:
    is_image = path.suffix.lower() in SUFFIXES or path.is_dir()
    if is_image and not path.name.startswith("."):
        return OUTSIDE
    return path.suffix.lower() or path.name


def _copies(looks: Sequence[Look]) -> list[list[Look]]:
    groups: dict[bytes, list[Look]] = defaultdict(list)
    for look in looks:
        if not look.error:
            groups[look.digest].append(look)
    return [group for group in groups.values() if len(group) > 1]


def _is_one_place(group: Sequence[Look]) -> bool:
    return len({(look.split, look.label) for look in group}) == 1


def _pair(group: Sequence[Look]) -> str:
    # The first of each set, so that a copy across sets is shown as such.
    first, *others = group
    other = next((look for look in others if look.split != first.split), others[0])
    return f"{first.name} = {other.name}"


def _short(look: Look) -> int:
    return min(look.width, look.height)


def _long(look: Look) -> int:
    return max(look.width, look.height)


def _by_class(looks: Sequence[Look], classes: Sequence[str]) -> dict[str, int]:
    counts = Counter(look.label for look in looks)
    return {name: counts[name] for name in classes}


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counter.most_common())


def _spread(values: Sequence[int]) -> str:
    if not values:
        return "none"
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}, median {median(values):g}"
