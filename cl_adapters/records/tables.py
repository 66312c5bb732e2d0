"""The tables of a run directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cl_adapters.errors import InputError
from cl_adapters.records.files import atomic_path
from cl_adapters.records.integrity import is_digested, read_checked

__all__ = [
    "COLUMN_TEXTS",
    "EXAMPLE_COLUMNS",
    "PREDICTION_COLUMNS",
    "RETRIEVAL_COLUMNS",
    "read_examples",
    "read_predictions",
    "read_retrieval",
    "table_bytes",
    "write_examples",
    "write_predictions",
    "write_retrieval",
]

# What a column means in each table that has it.
COLUMN_TEXTS: Final[dict[str, str]] = {
    "experience": "index of the experience after whose training the prediction was made",
    "sample": "index in the source's test split; of a task-free run over a stream that tests "
    "images again and again, that plus N times the experience of the hidden truth, N - 1 the "
    "largest index",
    "target": "class of the image, by position in `classes` of `run.json`",
    "prediction": "class that was answered, by position; in `examples.parquet` after the last "
    "experience",
    "confidence": "probability of the prediction",
    "nll": "-log probability of the target, natural logarithm",
    "target_experience": "experience of the test stream that the sample belongs to",
    "uncorrected": "class that the first adapter asked would have given, without any correction",
    "visited": "adapters that were asked, in order; adapter k is the one that experience k brought",
    "adapter": "the one that answered, the last visited",
    "right_experience": "last experience after which the prediction was right",
    "right_confidence": "probability that the prediction then had",
    "image": "a PNG file of at most 64 x 64 pixels, of the pixels before any preprocessing",
}

PREDICTION_COLUMNS: Final[dict[str, pa.DataType]] = {
    "experience": pa.int32(),
    "sample": pa.int32(),
    "target": pa.int32(),
    "prediction": pa.int32(),
    "confidence": pa.float32(),
    "nll": pa.float32(),
    "target_experience": pa.int32(),
}
RETRIEVAL_COLUMNS: Final[dict[str, pa.DataType]] = {
    "experience": pa.int32(),
    "sample": pa.int32(),
    "target": pa.int32(),
    "prediction": pa.int32(),
    "target_experience": pa.int32(),
    "uncorrected": pa.int32(),
    "visited": pa.list_(pa.int32()),
    "adapter": pa.int32(),
}
EXAMPLE_COLUMNS: Final[dict[str, pa.DataType]] = {
    "sample": pa.int32(),
    "target": pa.int32(),
    "target_experience": pa.int32(),
    "right_experience": pa.int32(),
    "right_confidence": pa.float32(),
    "prediction": pa.int32(),
    "confidence": pa.float32(),
    "image": pa.binary(),
}
_COLUMNS: Final[Mapping[str, dict[str, pa.DataType]]] = {
    "predictions.parquet": PREDICTION_COLUMNS,
    "retrieval.parquet": RETRIEVAL_COLUMNS,
    "examples.parquet": EXAMPLE_COLUMNS,
}


def write_predictions(folder: Path, frame: pd.DataFrame) -> None:
    """Writes `predictions.parquet` into `folder`, atomically, with the published columns only."""
    _write_table(folder / "predictions.parquet", frame)


def read_predictions(folder: Path) -> pd.DataFrame:
    """Reads the predictions of a run directory; empty if no experience has been evaluated yet.

    Raises:
        InputError: If the file is damaged, not as it was written, or lacks a column.
    """
    return _read_table(folder / "predictions.parquet")


def write_retrieval(folder: Path, frame: pd.DataFrame) -> None:
    """Writes `retrieval.parquet` into `folder`, atomically, with the published columns only."""
    _write_table(folder / "retrieval.parquet", frame)


def read_retrieval(folder: Path) -> pd.DataFrame:
    """Reads how a method chose adapters; empty if it is not one that does.

    Raises:
        InputError: If the file is damaged, not as it was written, or lacks a column.
    """
    return _read_table(folder / "retrieval.parquet")


def write_examples(folder: Path, frame: pd.DataFrame) -> None:
    """Writes `examples.parquet` into `folder`, atomically, with the published columns only."""
    _write_table(folder / "examples.parquet", frame)


def read_examples(folder: Path) -> pd.DataFrame:
    """Reads the pictures of what a run forgot; empty if it kept none.

    Raises:
        InputError: If the file is damaged, not as it was written, or lacks a column.
    """
    return _read_table(folder / "examples.parquet")


def table_bytes(name: str, frame: pd.DataFrame) -> bytes:
    """Returns the file of a table, with the published columns only.

    Args:
        name: Name of the file, such as `predictions.parquet`.
        frame: Its rows.
    """
    columns = _COLUMNS[name]
    schema = pa.schema(list(columns.items()))
    table = pa.Table.from_pandas(frame[list(columns)], schema=schema, preserve_index=False)
    data = pa.BufferOutputStream()  # never text: pyarrow takes some of it for an address
    pq.write_table(table, data, compression="zstd", write_page_checksum=True)
    found: bytes = data.getvalue().to_pybytes()
    return found


def _write_table(path: Path, frame: pd.DataFrame) -> None:
    data = table_bytes(path.name, frame)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _read_table(path: Path) -> pd.DataFrame:
    columns = _COLUMNS[path.name]
    data = read_checked(path.parent, path.name)
    if data is None:
        return pd.DataFrame(
            {name: np.empty(0, kind.to_pandas_dtype()) for name, kind in columns.items()}
        )
    try:
        # What matches its digest needs no checksums of its pages.
        is_unknown = not is_digested(path.parent, path.name)
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=is_unknown)
        table = file.read(columns=list(columns))
        # What the frame's writer noted about pandas is nothing to us, and may be damaged.
        frame: pd.DataFrame = table.replace_schema_metadata().to_pandas()
        frame = frame[list(columns)]
    except (OSError, pa.ArrowException, ValueError, TypeError, KeyError) as error:
        name, reason = path.stem, str(error).partition("\n")[0]
        raise InputError(f"{path} must be a readable {name} table, got: {reason}") from error
    return frame
