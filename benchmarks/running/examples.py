"""Pictures of what a run forgot, small and few, so that a report needs no data set.

After the last experience: of the classes whose accuracy fell most since they were learned, test
images whose prediction was right once and is wrong now.
"""

import io
from collections.abc import Callable
from typing import Final

import numpy as np
import pandas as pd
from PIL import Image

from cl_adapters.benchmarks.data.stores import Pixels
from cl_adapters.records.tables import EXAMPLE_COLUMNS

__all__ = ["MOST_CLASSES", "MOST_OF_A_CLASS", "MOST_PIXELS", "choose_examples", "draw_examples"]

MOST_CLASSES: Final = 8
MOST_OF_A_CLASS: Final = 3
MOST_PIXELS: Final = 64  # longer side of a picture

_KEY: Final = ["target_experience", "sample", "target"]


def choose_examples(predictions: pd.DataFrame) -> pd.DataFrame:
    """Returns the columns of `EXAMPLE_COLUMNS`, without the image, of what is worth a picture.

    At most `MOST_OF_A_CLASS` images, those that were most surely right, of each of the
    `MOST_CLASSES` classes whose accuracy lies furthest below its best.

    Args:
        predictions: Rows as in `cl_adapters.records.tables.PREDICTION_COLUMNS`, at least one.
    """
    seen = predictions[predictions["target_experience"] <= predictions["experience"]]
    rows = seen.assign(is_right=seen["prediction"] == seen["target"])
    right = rows[rows["is_right"]].sort_values("experience").groupby(_KEY).last()
    right = right[["experience", "confidence"]]
    right.columns = pd.Index(["right_experience", "right_confidence"])
    last = rows[rows["experience"] == predictions["experience"].max()]
    wrong = last[~last["is_right"]].merge(right.reset_index(), on=_KEY)
    wrong = wrong[wrong["target"].isin(_most_forgotten(rows))]
    order = ["target", "right_confidence", "target_experience", "sample"]
    wrong = wrong.sort_values(order, ascending=[True, False, True, True])
    chosen = wrong.groupby("target").head(MOST_OF_A_CLASS)
    columns = [name for name in EXAMPLE_COLUMNS if name != "image"]
    return pd.DataFrame(chosen[columns]).reset_index(drop=True)


def _most_forgotten(rows: pd.DataFrame) -> list[int]:
    accuracy = rows.groupby(["target", "experience"])["is_right"].mean().unstack()
    fall = (accuracy.max(axis=1) - accuracy.iloc[:, -1]).sort_values(ascending=False, kind="stable")
    return [int(target) for target in fall[fall > 0].index[:MOST_CLASSES]]


def draw_examples(predictions: pd.DataFrame, pixels: Callable[[int, int], Pixels]) -> pd.DataFrame:
    """Returns the rows of `examples.parquet`.

    Args:
        predictions: Rows as in `cl_adapters.records.tables.PREDICTION_COLUMNS`.
        pixels: Returns a test image by its experience and its sample, as that experience has it.
    """
    chosen = choose_examples(predictions)
    pairs = zip(chosen["target_experience"], chosen["sample"], strict=True)
    chosen["image"] = [_thumbnail(pixels(int(t), int(sample))) for t, sample in pairs]
    return chosen


def _thumbnail(pixels: Pixels) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
