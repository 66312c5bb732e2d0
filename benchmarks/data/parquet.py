"""Reads images from parquet files: one column of encoded bytes, one of labels.

Understands our own layout (`image`, `label`, optional `split` and `domain`) and the public exports
of data sets, where an image is a struct of `bytes` and `path` and the class names stand in the
metadata.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cl_adapters.benchmarks.data.images import (
    ImageSource,
    LabelledImages,
    natural_key,
    split_off,
)
from cl_adapters.benchmarks.data.stores import ArrowStore
from cl_adapters.errors import InputError
from cl_adapters.paths import user_path

__all__ = ["parquet_source"]

IMAGE_COLUMNS: Final = ("image", "img")
LABEL_COLUMNS: Final = ("label", "fine_label", "labels")
SPLITS: Final = ("train", "test", "validation", "valid", "val")


def parquet_source(path: str | Path, *, test_share: float = 0.25) -> ImageSource:
    """Returns the images of a parquet file, or of a folder with `train*` and `test*` files.

    Args:
        path: A file, split by its column `split` if there is one; or a folder.
        test_share: Share of each class that goes to test where a file holds no split.

    Raises:
        InputError: If a column is missing, a label has no meaning, or a class lacks images on one
            side.
    """
    root = user_path(path)
    table, splits = _read_folder(root) if root.is_dir() else _read_file(root)
    if not table.num_rows:
        raise InputError(f"{str(root)!r} must hold at least one image, got 0 rows")
    store = ArrowStore(root, _image_column(table, root))
    targets, classes = _labels(table, root)
    rows = np.arange(table.num_rows)
    images = LabelledImages(store, rows, targets, classes, _domains(table))
    if splits is None:
        train, test = split_off(images, test_share)
    else:
        is_train = splits == "train"
        train, test = (images.take(np.flatnonzero(side)) for side in (is_train, ~is_train))
    name = root.resolve().name.removesuffix(".parquet")
    return ImageSource(name, classes, train, test)


def _read(path: Path) -> pa.Table:
    try:
        known = {*IMAGE_COLUMNS, *LABEL_COLUMNS, "split", "domain"}
        with path.open("rb") as file:  # of text pyarrow would make an address
            schema = pq.read_schema(file)
            file.seek(0)
            return pq.read_table(file, columns=[name for name in schema.names if name in known])
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{str(path)!r} must be a readable parquet file, got: {error}") from error


def _read_file(path: Path) -> tuple[pa.Table, npt.NDArray[np.str_] | None]:
    table = _read(path)
    if "split" not in table.column_names:
        return table, None
    values = table["split"].to_pylist()
    for row, value in enumerate(values):
        if value not in SPLITS:
            raise InputError(
                f"split in row {row} of {str(path)!r} must be one of {', '.join(SPLITS)}, "
                f"got {value!r}"
            )
    return table, _check_splits(path, values)


def _read_folder(folder: Path) -> tuple[pa.Table, npt.NDArray[np.str_]]:
    tables: list[pa.Table] = []
    splits: list[str] = []
    for path in sorted(folder.glob("*.parquet"), key=lambda path: natural_key(path.name)):
        words = re.findall(r"(?<![a-z])(train|test|valid|val)", path.stem.lower())
        if len(set(words)) != 1:
            raise InputError(
                f"the name of {str(path)!r} must say whether it is train, test or validation"
            )
        tables.append(_read(path))
        splits += [words[0]] * tables[-1].num_rows
    if not tables:
        raise InputError(f"{str(folder)!r} must hold .parquet files, got none")
    metadata = tables[0].schema.metadata
    try:
        table = pa.concat_tables(
            [each.replace_schema_metadata(None) for each in tables], promote_options="permissive"
        )
    except pa.ArrowException as error:
        raise InputError(
            f"files of {str(folder)!r} must have equal columns, got: {error}"
        ) from error
    return table.replace_schema_metadata(metadata), _check_splits(folder, splits)


def _check_splits(path: Path, splits: Iterable[str]) -> npt.NDArray[np.str_]:
    array = np.array(list(splits), dtype=np.str_)
    tests = sorted(set(array.tolist()) - {"train"})
    if len(tests) > 1:
        raise InputError(f"{str(path)!r} must hold one test set, got {', '.join(tests)}")
    return array


def _column(table: pa.Table, names: tuple[str, ...], path: Path) -> tuple[str, pa.ChunkedArray]:
    for name in names:
        if name in table.column_names:
            return name, table[name]
    raise InputError(
        f"{str(path)!r} must have a column {' or '.join(map(repr, names))}, "
        f"got {table.column_names}"
    )


def _image_column(table: pa.Table, path: Path) -> pa.LargeBinaryArray:
    name, column = _column(table, IMAGE_COLUMNS, path)
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise InputError(
            f"column {name!r} of {str(path)!r} must hold encoded images as bytes, got {column.type}"
        )
    if column.null_count:
        row = pc.index(column.is_null(), pa.scalar(value=True)).as_py()
        raise InputError(f"image in row {row} of {str(path)!r} must not be empty, got null")
    return pa.concat_arrays(column.cast(pa.large_binary()).chunks)


def _domains(table: pa.Table) -> npt.NDArray[np.str_] | None:
    # Not every stream needs domains: what is wrong with them is said where they are used.
    if "domain" not in table.column_names:
        return None
    column = table["domain"]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return None
    return np.array([name or "" for name in column.to_pylist()], dtype=np.str_)


def _labels(table: pa.Table, path: Path) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    name, column = _column(table, LABEL_COLUMNS, path)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        row = pc.index(column.is_null(), pa.scalar(value=True)).as_py()
        raise InputError(f"label in row {row} of {str(path)!r} must not be empty, got null")
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        words = np.array(column.to_pylist(), dtype=object)
        classes = tuple(sorted(set(words.tolist()), key=natural_key))
        index = {word: target for target, word in enumerate(classes)}
        return np.array([index[word] for word in words], dtype=np.int64), classes
    targets = _whole_numbers(column.to_numpy(), path)
    names = _class_names(table.schema.metadata or {}, name, path)
    if names is None:
        _check_gaps(targets, path)
        names = tuple(str(label) for label in range(int(targets.max()) + 1))
    for row in np.flatnonzero(targets >= len(names)):
        raise InputError(
            f"label in row {row} of {str(path)!r} must be less than the number of class names, "
            f"{len(names)}, got {targets[row]}"
        )
    return targets, names


def _whole_numbers(labels: npt.NDArray[Any], path: Path) -> npt.NDArray[np.int64]:
    if labels.dtype.kind not in "iuf":
        raise InputError(
            f"labels of {str(path)!r} must be whole numbers or text, got {labels.dtype}"
        )
    # The comparisons are false for NaN and infinities.
    is_right = (labels >= 0) & (labels < 2**31) & (np.mod(labels, 1) == 0)
    for row in np.flatnonzero(~is_right):
        raise InputError(
            f"label in row {row} of {str(path)!r} must be a whole number from 0, got {labels[row]}"
        )
    return labels.astype(np.int64)


def _check_gaps(targets: npt.NDArray[np.int64], path: Path) -> None:
    present = np.unique(targets)
    for place, label in enumerate(present.tolist()):
        if place != label:
            raise InputError(
                f"labels of {str(path)!r} must run from 0 to {present[-1]} without a gap, "
                f"got none equal to {place}"
            )


def _class_names(metadata: dict[bytes, bytes], column: str, path: Path) -> tuple[str, ...] | None:
    """Finds the class names in our key `classes` or in the key `huggingface` of public exports."""
    try:
        if b"classes" in metadata:
            names = json.loads(metadata[b"classes"])
        else:
            features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
            names = features[column]["names"]
    except KeyError:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"class names in {str(path)!r} must be JSON, got: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"class names in {str(path)!r} must be a list of texts, got {names!r}")
    return tuple(names)
