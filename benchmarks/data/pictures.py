"""Images to be answered, not learned: files, folders and parquet files, with labels or without."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cl_adapters.benchmarks.data.parquet import table_pictures
from cl_adapters.benchmarks.data.reading import AS_IT_IS, LeftOut, ReadOptions
from cl_adapters.benchmarks.data.stores import FileStore, ImageStore, Pixels
from cl_adapters.benchmarks.data.walking import files_below
from cl_adapters.errors import InputError
from cl_adapters.paths import user_path

__all__ = ["Picture", "find_pictures"]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image somewhere.

    Attributes:
        name: Its path as it was found, or its row of a table.
        label: Name of the folder that it lies in, or what the table says; None where nothing does.
        store: Where it is kept.
        row: Its row there.
    """

    name: str
    label: str | None
    store: ImageStore
    row: int

    def pixels(self) -> Pixels:
        """Returns the image as uint8 (H, W, 3).

        Raises:
            InputError: If it cannot be decoded.
        """
        return self.store.pixels(self.row)

    def encoded(self) -> bytes:
        """Returns the bytes as stored.

        Raises:
            InputError: If they cannot be read.
        """
        return bytes(self.store.encoded(self.row))


def find_pictures(
    paths: Iterable[Path], options: ReadOptions = AS_IT_IS, *, labelled: bool = False
) -> tuple[list[Picture], list[LeftOut]]:
    """Returns the images at or below some paths, in natural order, and what was left out.

    Args:
        paths: Image files, folders with images somewhere below, parquet files.
        options: Which columns of a table the user named, and the largest image to decode.
        labelled: Read the classes of tables too.

    Raises:
        InputError: If a path does not exist, or there is no image at all.
    """
    found: list[Picture] = []
    left: list[LeftOut] = []
    several = list(paths)
    for path in several:
        place = user_path(path)
        if place.is_dir():
            inside, rest = _in_folder(place, options)
            found += inside
            left += rest
        elif not place.exists():
            raise InputError(f"{str(path)!r} must be a file or a folder that exists")
        elif place.suffix.lower() == ".parquet":
            found += _in_table(place, options, labelled=labelled)
        else:
            found += _files(place.parent, [place.name], options)
    if any(getattr(options, name) for name in _OF_TABLES) and not _has_table(several):
        raise InputError("`--image-column` and `--label-column` must go with a parquet file")
    found = _each_once(found)
    if not found:
        names = ", ".join(repr(str(each)) for each in several)
        others = f", but {len(left)} files that are none" if left else ""
        raise InputError(f"{names} must hold images, got none{others}")
    return found, left


_OF_TABLES: Final = ("image_column", "label_column")


def _has_table(paths: Iterable[Path]) -> bool:
    return any(path.suffix.lower() == ".parquet" for path in paths)


def _each_once(pictures: Iterable[Picture]) -> list[Picture]:
    """Leaves out images that were reached by more than one of the paths."""
    known: dict[str, Picture] = {}
    for each in pictures:
        known.setdefault(os.path.abspath(each.name), each)  # noqa: PTH100 - no disk is asked
    return list(known.values())


def _in_folder(folder: Path, options: ReadOptions) -> tuple[list[Picture], list[LeftOut]]:
    try:
        walk = files_below(folder)
    except OSError as error:
        raise InputError(f"{str(folder)!r} must be readable, got: {error}") from error
    left = [LeftOut(str(folder / each.path), each.reason) for each in walk.left]
    return list(_files(folder, walk.images, options)), left


def _files(root: Path, names: list[str], options: ReadOptions) -> Iterator[Picture]:
    store = FileStore(root, names, options.max_pixels)
    for row, name in enumerate(names):
        path = root / name
        yield Picture(str(path), path.absolute().parent.name, store, row)


def _in_table(path: Path, options: ReadOptions, *, labelled: bool) -> Iterator[Picture]:
    store, labels = table_pictures(path, options, labelled=labelled)
    for row in range(len(store.column)):
        yield Picture(f"{path}:{row}", labels[row] if labels else None, store, row)
