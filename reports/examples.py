"""Test images that a run once got right and now gets wrong, as pictures for the page."""

import base64
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from cl_adapters.errors import InputError
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_examples
from cl_adapters.reports.experience_names import experience_label, experience_names
from cl_adapters.reports.groups import clean_text
from cl_adapters.reports.load import Run

__all__ = ["MOST_EXAMPLES", "Example", "read_run_examples"]

MOST_EXAMPLES: Final = 24  # of a run
_MOST_BYTES: Final = 24_000  # of a picture; what the runner writes is far smaller
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_NUMBER_COLUMNS: Final = ("sample", "right_confidence", "confidence")


@dataclass(frozen=True, kw_only=True)
class Example:
    """A test image that was right once and is wrong at the end.

    Attributes:
        target: Name of its class.
        prediction: Name of the class that it is taken for at the end.
        sample: Its index in the source's test split.
        right_experience: The last experience after which it was right, from 1, and its name.
        right_confidence: Probability of the right class then, in percent.
        confidence: Probability of the wrong class at the end, in percent.
        source: The picture as an address that holds it.
    """

    target: str
    prediction: str
    sample: int
    right_experience: str
    right_confidence: float
    confidence: float
    source: str


def read_run_examples(run: Run) -> list[Example]:
    """Reads the examples of a run; none if it kept none.

    Raises:
        InputError: If the table is damaged or does not fit the run.
    """
    frame = read_examples(run.folder).head(MOST_EXAMPLES)
    if frame.empty:
        return []
    _check(frame, run)
    return [_example(row, run.record) for row in frame.to_dict("records")]


def _example(row: dict[Hashable, Any], record: RunRecord) -> Example:
    classes, names = record.classes, experience_names([record])
    last = int(row["right_experience"])
    picture = base64.b64encode(row["image"]).decode()
    return Example(
        target=clean_text(str(classes[int(row["target"])]), 40),
        prediction=clean_text(str(classes[int(row["prediction"])]), 40),
        sample=int(row["sample"]),
        right_experience=experience_label(last + 1, names[last] if names else "", 40),
        right_confidence=100 * float(row["right_confidence"]),
        confidence=100 * float(row["confidence"]),
        source=f"data:image/png;base64,{picture}",
    )


def _check(frame: pd.DataFrame, run: Run) -> None:
    num_classes, num_experiences = len(run.record.classes), len(run.record.experiences)
    limits = {"target": num_classes, "prediction": num_classes, "right_experience": num_experiences}
    for name in (*limits, *_NUMBER_COLUMNS):
        column = frame[name]
        if not pd.api.types.is_numeric_dtype(column) or column.isna().any():
            raise InputError(f"examples.parquet: {name} must hold numbers only")
        if name in limits and not column.between(0, limits[name] - 1).all():
            raise InputError(f"examples.parquet: {name} must lie in [0, {limits[name]})")
    for image in frame["image"]:
        is_png = isinstance(image, bytes) and image.startswith(_PNG)
        if not is_png or len(image) > _MOST_BYTES:
            raise InputError(
                f"examples.parquet: image must hold PNG files of at most {_MOST_BYTES} bytes"
            )
