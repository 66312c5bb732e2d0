"""Reads images from parquet files: one column of encoded bytes, one of labels.

Understands our own layout (`image`, `label`, optional `split` and `domain`) and the public exports
of data sets, where an image is a struct of `bytes` and `path` and the class names stand in the
metadata.
"""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cl_adapters.benchmarks.data.columns import (
    DOMAIN,
    SPLIT,
    find_columns,
    find_picture_columns,
)
from cl_adapters.benchmarks.data.images import (
    ImageSource,
    LabelledImages,
    natural_key,
    split_table,
)
from cl_adapters.benchmarks.data.reading import (
    AS_IT_IS,
    Reading,
    ReadOptions,
    refuse_options,
)
from cl_adapters.benchmarks.data.stores import ArrowStore
from cl_adapters.benchmarks.data.table_files import check_alone, table_files
from cl_adapters.errors import InputError
from cl_adapters.paths import user_path

__all__ = ["parquet_source", "table_pictures"]

SPLITS: Final = ("train", "test", "validation", "valid", "val")


def parquet_source(
    path: str | Path, *, test_share: float = 0.25, options: ReadOptions = AS_IT_IS
) -> ImageSource:
    """Returns the images of a parquet file, or of a folder with train and test files.

    A validation set beside a test set is not used, and serves as one where there is none.

    Args:
        path: A file, split by its column `split` if there is one; or a folder (`table_files`).
        test_share: Share of each class that goes to test where a file holds no split.
        options: Which columns the user named.

    Raises:
        InputError: If a column is missing, a label has no meaning, or a class lacks images on one
            side.
    """
    root = user_path(path)
    refuse_options(options, ("class_depth", "domain_folders"), f"the table {str(path)!r}")
    try:
        table, splits = _read_folder(root, options) if root.is_dir() else _read_file(root, options)
    except OSError as error:
        raise InputError(f"{str(root)!r} must be readable, got: {error}") from error
    if not table.num_rows:
        raise InputError(f"{str(root)!r} must hold at least one image, got 0 rows")
    image, label = _columns(table.schema, root, options)
    store = ArrowStore(root, _image_column(table[image], image, root), options.max_pixels)
    targets, classes = _labels(table, label, root)
    rows = np.arange(table.num_rows)
    images = LabelledImages(store, rows, targets, classes, _domains(table))
    train, test, said, left = split_table(images, splits, test_share, root, options)
    name = root.resolve().name.removesuffix(".parquet")
    layout = f"table, images in column {image!r}, labels in {label!r}, {said}"
    return ImageSource(name, classes, train, test, Reading(layout=layout, left_out=left))


def table_pictures(
    path: Path, options: ReadOptions, *, labelled: bool
) -> tuple[ArrowStore, list[str] | None]:
    """Returns the images of a parquet file, and their classes if these are asked for.

    Args:
        path: The file.
        options: Which columns the user named.
        labelled: Read the classes too, where a column has them.

    Raises:
        InputError: If it cannot be read, or a column is missing or of no use.
    """
    schema = _schema(path)
    likely = [each.name for each in schema if _is_bytes(each.type)]
    image, label = find_picture_columns(schema.names, options, repr(str(path)), likely=likely)
    table = _table(path, {image, label})
    column = (
        _image_column(table[image], image, path, or_empty=True) if table.num_rows else _NO_IMAGES
    )
    store = ArrowStore(path, column, options.max_pixels)
    if not labelled or label is None or not table.num_rows:
        return store, None
    targets, classes = _labels(table, label, path)
    return store, [classes[target] for target in targets.tolist()]


_NO_IMAGES: Final = pa.array([], pa.large_binary())


def _read(path: Path, options: ReadOptions) -> pa.Table:
    return _table(path, {*_columns(_schema(path), path, options), SPLIT, DOMAIN})


def _schema(path: Path) -> pa.Schema:
    with _readable(path), path.open("rb") as file:
        return pq.read_schema(file)


def _table(path: Path, wanted: Collection[str | None]) -> pa.Table:
    names = [name for name in _schema(path).names if name in wanted]
    with _readable(path), path.open("rb") as file:
        return pq.read_table(file, columns=names)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{str(path)!r} must be a readable parquet file, got: {reason}") from error


def _columns(schema: pa.Schema, path: Path, options: ReadOptions) -> tuple[str, str]:
    likely = {
        "image": [each.name for each in schema if _is_bytes(each.type)],
        "label": [each.name for each in schema if _is_label(each.type)],
    }
    return find_columns(schema.names, options, repr(str(path)), likely=likely)


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_is_bytes(kind.field(place).type) for place in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_label(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind))


def _read_file(path: Path, options: ReadOptions) -> tuple[pa.Table, npt.NDArray[np.str_] | None]:
    check_alone(path)
    table = _read(path, options)
    if SPLIT not in table.column_names:
        return table, None
    values = table[SPLIT].to_pylist()
    for row, value in enumerate(values):
        if value not in SPLITS:
            raise InputError(
                f"split in row {row} of {str(path)!r} must be one of {', '.join(SPLITS)}, "
                f"got {value!r}"
            )
    return table, np.array(values, dtype=np.str_)


def _read_folder(folder: Path, options: ReadOptions) -> tuple[pa.Table, npt.NDArray[np.str_]]:
    files = table_files(folder)
    if not files:
        raise InputError(f"{str(folder)!r} must hold .parquet files, got none")
    tables = [_read(each.path, options) for each in files]
    splits = [
        each.split for each, table in zip(files, tables, strict=True) for _ in range(len(table))
    ]
    metadata = tables[0].schema.metadata
    try:
        table = pa.concat_tables(
            [each.replace_schema_metadata(None) for each in tables], promote_options="permissive"
        )
    except pa.ArrowException as error:
        raise InputError(
            f"files of {str(folder)!r} must have equal columns, got: {str(error).splitlines()[0]}"
        ) from error
    return table.replace_schema_metadata(metadata), np.array(splits, dtype=np.str_)


def _image_column(
    column: pa.ChunkedArray, name: str, path: Path, *, or_empty: bool = False
) -> pa.LargeBinaryArray:
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise InputError(
            f"column {name!r} of {str(path)!r} must hold encoded images as bytes, got "
            f"{str(column.type)[:200]}{_where_they_may_be(column.type)}"
        )
    if column.null_count and or_empty:  # such an image is then unreadable, and the others are not
        column = column.fill_null(b"")
    if column.null_count:
        row = pc.index(column.is_null(), pa.scalar(value=True)).as_py()
        raise InputError(f"image in row {row} of {str(path)!r} must not be empty, got null")
    return pa.concat_arrays(column.cast(pa.large_binary()).chunks)


def _where_they_may_be(kind: pa.DataType) -> str:
    is_named = pa.types.is_string(kind) or pa.types.is_struct(kind)
    return "; a table that names files is read from .csv" if is_named else ""


def _domains(table: pa.Table) -> npt.NDArray[np.str_] | None:
    # Not every stream needs domains: what is wrong with them is said where they are used.
    if DOMAIN not in table.column_names:
        return None
    column = table[DOMAIN]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return None
    return np.array([name or "" for name in column.to_pylist()], dtype=np.str_)


def _labels(
    table: pa.Table, name: str, path: Path
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    column = table[name]
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
            found = json.loads(metadata.get(b"huggingface", b"{}"))
            for key in ("info", "features", column, "names"):
                found = {} if found is None else found
                found = found[key]
            names = found
    except KeyError:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"class names in {str(path)!r} must be JSON, got: {error}") from error
    if names is None and b"classes" not in metadata:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"class names in {str(path)!r} must be a list of texts, got {names!r}")
    return tuple(names)
