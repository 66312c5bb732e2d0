"""Looks at images before a run does: what is there, what is wrong, what a run would do about it.

Duplicates are found by the decoded pixels, upright and in RGB: a copy under another name or in
another lossless format counts, a copy compressed once more does not. A folder is read leniently,
so that all its faults are listed at once where a run would end at the first.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cl_adapters.benchmarks.data.findings import (
    find_faults,
    left_aside,
    refused,
    worst_first,
)
from cl_adapters.benchmarks.data.folders import left_in
from cl_adapters.benchmarks.data.images import ImageSource, LabelledImages, natural_key
from cl_adapters.benchmarks.data.inspection import Finding, Inspection, Look
from cl_adapters.benchmarks.data.layouts import Layout, class_folders, find_layout
from cl_adapters.benchmarks.data.reading import AS_IT_IS, LeftOut, Reading, ReadOptions
from cl_adapters.benchmarks.data.sources import SOURCES, open_source
from cl_adapters.benchmarks.data.stores import FileStore
from cl_adapters.benchmarks.data.walking import files_below
from cl_adapters.errors import InputError
from cl_adapters.images.decoding import decode_picture

__all__ = ["Finding", "Inspection", "Look", "inspect_data"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image before it is read: where it belongs, what to call it, and its bytes."""

    split: str
    label: str
    name: str
    load: Callable[[], bytes | memoryview]


def inspect_data(
    path: Path,
    on_image: Callable[[int], None] | None = None,
    options: ReadOptions = AS_IT_IS,
) -> Inspection:
    """Reads every image of a folder or table and returns what is to know about it.

    Args:
        path: As for `open_source`.
        on_image: Called with the number of all images, once for each one read.
        options: As for `open_source`.

    Raises:
        InputError: If the path does not exist or is neither.
    """
    source, refusal = _open(path, options)
    if source is None and not path.exists():
        raise InputError(refusal)
    seen = _Folder.of(path, source, options) or _Rows(source)
    looks: list[Look] = []
    for entry in seen.entries:
        looks.append(_look(entry, options.max_pixels))
        if on_image is not None:
            on_image(len(seen.entries))
    if not seen.entries and refusal:
        findings = [refused(refusal)]
    else:
        findings = find_faults(looks, seen.classes, refusal)
    return Inspection(
        name=str(path),
        classes=tuple(seen.classes),
        looks=tuple(looks),
        findings=worst_first([*findings, *left_aside(seen.reading.left_out)]),
        layout=seen.reading.layout,
    )


def _open(path: Path, options: ReadOptions) -> tuple[ImageSource | None, str]:
    """Returns what a run would open, or the sentence that it would end with."""
    if str(path) in SOURCES and not path.exists():
        return open_source(str(path)), ""
    try:
        return open_source(path, options), ""
    except InputError as error:
        return None, str(error)


class _Rows:
    """What a source holds that was opened."""

    def __init__(self, source: ImageSource | None) -> None:
        sides = (("train", source.train), ("test", source.test)) if source else ()
        self.entries = [entry for split, images in sides for entry in _entries(split, images)]
        self.classes = source.classes if source else ()
        self.reading = source.reading if source else Reading()


class _Folder:
    """What lies in an image folder, whether a run would open it or not."""

    def __init__(self, layout: Layout, source: ImageSource | None, options: ReadOptions) -> None:
        self.entries: list[Entry] = []
        left: list[LeftOut] = list(layout.left)
        names: set[str] = set()
        made = _made_split(source)
        for part in layout.parts:
            classes = class_folders(part, layout.depth, domain_folders=options.domain_folders)
            left += left_in(layout, part, classes)
            names.update(each.name for each in classes)
            for each in classes:
                folder = part.folder / each.folder
                walk = files_below(folder)
                left += [
                    LeftOut((folder / one.path).relative_to(layout.root).as_posix(), one.reason)
                    for one in walk.left
                ]
                self.entries += [
                    _entry(layout.root, part.split, each.name, folder / image, made)
                    for image in walk.images
                ]
        self.classes = tuple(sorted(names, key=natural_key))
        self.reading = Reading(layout=layout.said, left_out=tuple(left))

    @classmethod
    def of(cls, path: Path, source: ImageSource | None, options: ReadOptions) -> "_Folder | None":
        """Returns what lies in a folder of class folders; None if it is none."""
        is_files = source is None or isinstance(source.train.store, FileStore)
        if not path.is_dir() or not is_files:
            return None
        try:
            return cls(find_layout(path, options), source, options)
        except (InputError, OSError):  # which the refusal says
            return None


def _entry(root: Path, split: str, label: str, place: Path, made: dict[str, str]) -> Entry:
    name = place.relative_to(root).as_posix()
    side = split or made.get(str(place), "")
    return Entry(split=side, label=label, name=name, load=place.read_bytes)


def _made_split(source: ImageSource | None) -> dict[str, str]:
    # Where the folder holds no split, the run's own, which depends on the content alone.
    sides = {"train": source.train, "test": source.test} if source else {}
    return {
        str(images.store.root / images.store.paths[row]): split
        for split, images in sides.items()
        if isinstance(images.store, FileStore)
        for row in images.rows.tolist()
    }


def _entries(split: str, images: LabelledImages) -> Iterator[Entry]:
    for row, target in zip(images.rows.tolist(), images.targets.tolist(), strict=True):
        yield Entry(
            split=split,
            label=images.classes[target],
            name=f"row {row}",
            load=lambda row=row: images.store.encoded(row),  # type: ignore[misc]
        )


def _look(entry: Entry, max_pixels: int | None) -> Look:
    place = Look(split=entry.split, label=entry.label, name=entry.name)
    try:
        picture, notes, mode = decode_picture(entry.load(), repr(entry.name), max_pixels)
    except (InputError, OSError) as error:
        return replace(place, error=str(error))
    width, height = picture.size
    sha = hashlib.sha256(f"{height}x{width}:".encode())
    sha.update(picture.tobytes())
    return replace(place, width=width, height=height, mode=mode, digest=sha.digest(), notes=notes)
