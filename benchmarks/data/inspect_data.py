"""Looks at images before a run does: what is there, what is wrong, what a run would do about it.

Duplicates are found by the decoded pixels, upright and in RGB: a copy under another name or in
another lossless format counts, a copy compressed once more does not. A folder is read leniently,
so that all its faults are listed at once where a run would end at the first.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from cl_adapters.benchmarks.data.findings import find_faults, passed_over, refused, worst_first
from cl_adapters.benchmarks.data.images import ImageSource, LabelledImages, natural_key
from cl_adapters.benchmarks.data.inspection import Finding, Inspection, Look
from cl_adapters.benchmarks.data.sources import (
    SOURCES,
    class_folders,
    image_paths,
    open_source,
    split_folders,
)
from cl_adapters.benchmarks.data.stores import FORMATS, FileStore, decode_image
from cl_adapters.errors import InputError

__all__ = ["Finding", "Inspection", "Look", "inspect_data"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image before it is read: where it belongs, what to call it, and its bytes."""

    split: str
    label: str
    name: str
    load: Callable[[], bytes | memoryview]


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
        return Inspection(name=str(path), classes=(), looks=(), findings=(refused(refusal),))
    is_files = source is None or isinstance(source.train.store, FileStore)
    entries = _files(path, source) if is_files else _rows(source)
    looks: list[Look] = []
    for entry in entries:
        looks.append(_look(entry))
        if on_image is not None:
            on_image(len(entries))
    classes = _classes(path) if is_files or source is None else source.classes
    findings = find_faults(looks, classes, refusal)
    if is_files:
        findings += passed_over(path, {look.name for look in looks})
    return Inspection(
        name=str(path),
        classes=tuple(classes),
        looks=tuple(looks),
        findings=worst_first(findings),
    )


def _open(path: Path) -> tuple[ImageSource | None, str]:
    """Returns what a run would open, or the sentence that it would end with."""
    if str(path) in SOURCES and not path.exists():
        return open_source(str(path)), ""
    try:
        return open_source(path), ""
    except InputError as error:
        return None, str(error)


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
