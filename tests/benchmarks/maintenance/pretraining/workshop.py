"""Inputs of a pretraining, and what passes through its networks."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cl_adapters.benchmarks.maintenance.pretrain import (
    PretrainConfig,
)

# Ten of a class are those whose first is one of the class means.
TRAIN, TEST = [0] * 6 + [1] * 6, [0] * 3 + [1] * 3


def photograph(label: int, place: int) -> bytes:
    """A PNG of noise around red or blue."""
    source = np.random.default_rng(100 * label + place)
    pixels = source.integers(0, 120, (8, 8, 3), dtype=np.uint8)
    pixels[..., 2 * label] += 130
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_data(path: Path, first: int = 0) -> Path:
    labels = TRAIN + TEST
    columns = {
        "image": [photograph(label, first + place) for place, label in enumerate(labels)],
        "label": labels,
        "split": ["train"] * len(TRAIN) + ["test"] * len(TEST),
    }
    pq.write_table(pa.table(columns), path)
    return path


@dataclass(frozen=True)
class Workshop:
    """Inputs and a folder where all runs share one cache of the teacher's features."""

    folder: Path
    teacher: Path

    def config(self, name: str, **settings: Any) -> PretrainConfig:
        small: dict[str, Any] = {
            "data": self.folder / "data.parquet", "teacher": self.teacher,
            "out": self.folder / name, "steps": 4, "decay": 1, "warmup": 2, "photos": 2,
            "drawn": 1, "num_glyphs": 5, "num_emblems": 4, "every": 2, "threads": 1,
        }  # fmt: skip
        return PretrainConfig(**(small | settings))
