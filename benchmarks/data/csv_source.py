"""Reads images that a table of text names: `labels.csv` with files and labels, images in folders.

    photos/labels.csv        file,label
    photos/images/a.png      a.png,ant

The files are looked for beside the table and in the folders there, with or without their suffix. A
column `split` is followed, as in a parquet file, and so is `domain`.
"""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import numpy.typing as npt

from cl_adapters.benchmarks.data.columns import DOMAIN, SPLIT, find_columns
from cl_adapters.benchmarks.data.images import (
    ImageSource,
    LabelledImages,
    natural_key,
    split_table,
)
from cl_adapters.benchmarks.data.reading import (
    AS_IT_IS,
    UNLISTED,
    LeftOut,
    Reading,
    ReadOptions,
    refuse_options,
)
from cl_adapters.benchmarks.data.split_names import normal_name, role_in_name
from cl_adapters.benchmarks.data.stores import FileStore
from cl_adapters.benchmarks.data.walking import SUFFIXES, Walk, files_below
from cl_adapters.errors import InputError, listed
from cl_adapters.paths import user_path

__all__ = ["CSV_SUFFIXES", "csv_source", "label_tables"]

CSV_SUFFIXES: Final = (".csv", ".tsv")


def label_tables(folder: Path) -> list[Path]:
    """Returns the tables of text in a folder, in natural order."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in CSV_SUFFIXES)
    shown = [path for path in found if not path.name.startswith(".") and path.is_file()]
    return sorted(shown, key=lambda path: natural_key(path.name))


def csv_source(
    path: str | Path, *, test_share: float = 0.25, options: ReadOptions = AS_IT_IS
) -> ImageSource:
    """Returns the images that a table of text names.

    Args:
        path: The table, in UTF-8, with a heading; `.tsv` is cut at tabs.
        test_share: Share of each class that goes to test where the table has no column `split`.
        options: Which columns the user named.

    Raises:
        InputError: If a column or a file is missing, a cell is empty, or a class lacks images on
            one side.
    """
    table = user_path(path)
    refuse_options(options, ("class_depth", "domain_folders"), f"the table {str(path)!r}")
    try:
        names, rows = _read(table)
        likely = {"image": _file_columns(names, rows), "label": names}
        image, label = find_columns(names, options, repr(str(table)), likely=likely, are_files=True)
        walk = files_below(table.parent)
        paths = _paths(table, [row[image] for row in rows], image, walk.images)
    except OSError as error:
        raise InputError(f"{str(table)!r} must be readable, got: {error}") from error
    labels = [
        normal_name(_filled(table, place, label, row[label])) for place, row in enumerate(rows)
    ]
    classes = tuple(sorted(set(labels), key=natural_key))
    index = {name: target for target, name in enumerate(classes)}
    images = LabelledImages(
        FileStore(table.parent, paths, options.max_pixels),
        np.arange(len(paths)),
        np.array([index[name] for name in labels], dtype=np.int64),
        classes,
        np.array([row[DOMAIN] or "" for row in rows], np.str_) if DOMAIN in names else None,
    )
    splits = _splits(table, rows) if SPLIT in names else None
    train, test, said, left = split_table(images, splits, test_share, table, options)
    layout = f"table {table.name!r}, files in column {image!r}, labels in {label!r}, {said}"
    reading = Reading(layout=layout, left_out=(*_left(table, walk, paths), *left))
    name = table.resolve().parent.name or table.stem
    return ImageSource(name, classes, train, test, reading)


def _left(table: Path, walk: Walk, paths: Sequence[str]) -> tuple[LeftOut, ...]:
    unlisted = sorted(set(walk.images) - set(paths), key=natural_key)
    others = (each for each in walk.left if each.path != table.name)
    return (*(LeftOut(each, UNLISTED) for each in unlisted), *others)


def _read(table: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            heading = file.readline()
            file.seek(0)
            cut = "\t" if table.suffix.lower() == ".tsv" or "\t" in heading else ","
            cut = ";" if ";" in heading and cut not in heading else cut
            reader = csv.reader(file, delimiter=cut, strict=True)
            names, *rows = [row for row in reader if row] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{str(table)!r} must be a table of text in UTF-8, got: {str(error).splitlines()[0]}"
        ) from error
    if not rows:
        raise InputError(f"{str(table)!r} must hold a heading and at least one image, got 0 rows")
    for place, row in enumerate(rows):
        if len(row) != len(names):
            raise InputError(
                f"row {place} of {str(table)!r} must have {len(names)} cells, got {len(row)}"
            )
    return names, [dict(zip(names, row, strict=True)) for row in rows]


def _file_columns(names: Sequence[str], rows: Sequence[dict[str, str]]) -> list[str]:
    return [name for name in names if Path(rows[0][name]).suffix.lower() in SUFFIXES]


def _filled(table: Path, place: int, column: str, value: str) -> str:
    if not value.strip():
        raise InputError(
            f"cell {column!r} in row {place} of {str(table)!r} must not be empty, got {value!r}"
        )
    return value.strip()


def _paths(table: Path, cells: Sequence[str], column: str, images: Sequence[str]) -> list[str]:
    """Returns the file of each row, relative to the table's folder."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in images:
        name = PurePosixPath(path)
        by_name[name.name].append(path)
        by_name[name.stem].append(path)
    paths = []
    for place, cell in enumerate(cells):
        value = _filled(table, place, column, cell).replace("\\", "/").removeprefix("./")
        found = [path for path in by_name[value.rpartition("/")[2]] if _is_named(path, value)]
        found = [path for path in found if path == value] or found
        if len(found) != 1:
            got = f"{cell!r}, which may be {listed(found)}" if found else f"{cell!r}"
            raise InputError(
                f"row {place} of {str(table)!r} must name one image beside the table or in a "
                f"folder there, got {got}"
            )
        paths.append(found[0])
    return paths


def _is_named(path: str, value: str) -> bool:
    # With its suffix or without, from the table's folder on or from any below it.
    bare = str(PurePosixPath(path).with_suffix(""))
    return any(f"/{each}".endswith(f"/{value}") for each in (path, bare))


def _splits(table: Path, rows: Sequence[dict[str, str]]) -> npt.NDArray[np.str_]:
    splits = []
    for place, row in enumerate(rows):
        role, others = role_in_name(row[SPLIT])
        if role is None or others:
            raise InputError(
                f"split in row {place} of {str(table)!r} must be one of train, test, validation, "
                f"got {row[SPLIT]!r}"
            )
        splits.append(role)
    return np.array(splits, dtype=np.str_)
