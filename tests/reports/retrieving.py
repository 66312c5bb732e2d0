"""Synthetic retrieval: the records of a method that asks adapters until one confirms itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cl_adapters.records.tables import read_predictions, write_retrieval
from cl_adapters.reports.groups import Group, group_runs
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.retrieval import Retrieval, measure_retrieval
from cl_adapters.reports.sections.retrieval import RetrievalSection, read_retrievals
from tests.reports.conftest import MakeRun
from tests.reports.lines import append_event


def retrieval_frame(
    predictions: pd.DataFrame, *, seed: int = 0, wrong_first: float = 0.3, max_rounds: int = 4
) -> pd.DataFrame:
    """Returns rows for the same predictions whose first adapter is often that of a neighbour."""
    generator = np.random.default_rng(seed)
    frame = predictions.drop(columns=["confidence", "nll"])
    visited: list[list[int]] = []
    uncorrected: list[int] = []
    for row in frame.itertuples():
        newest = int(row.experience)
        goal = min(int(row.target_experience), newest)
        is_lost = generator.random() < 0.15
        asked = [int(generator.integers(newest + 1)) if is_lost else goal]
        while generator.random() < wrong_first and len(asked) < max_rounds and newest:
            asked.insert(0, (asked[0] + int(generator.choice([1, newest]))) % (newest + 1))
        visited.append(asked)
        is_led_astray = len(asked) > 1 and generator.random() < 0.5
        uncorrected.append(0 if is_led_astray else int(row.prediction))
    frame["uncorrected"] = uncorrected
    frame["visited"] = visited
    frame["adapter"] = [asked[-1] for asked in visited]
    return frame


def drift_matrix(size: int, step: float = 0.2) -> list[list[float]]:
    """Returns distances that grow with the age between two adapters."""
    return [[step * abs(i - j) ** 0.5 / (1 + 0.1 * i) for j in range(size)] for i in range(size)]


def write_retrieving(
    folder: Path, *, step: float | None = 0.2, seed: int = 0, **options: float
) -> pd.DataFrame:
    """Writes the retrieval of a run directory that has predictions, and returns its rows.

    Args:
        folder: The run directory.
        step: Distance of neighbouring adapters; None writes none.
        seed: Of the choices.
        **options: Of `retrieval_frame`.
    """
    predictions = read_predictions(folder)
    frame = retrieval_frame(predictions, seed=seed, **options)
    write_retrieval(folder, frame)
    if step is not None:
        for t in range(int(predictions["experience"].max()) + 1):
            append_event(folder, "drift", t, 0.0, distances=drift_matrix(t + 1, step))
    return frame


# Two experiences of one class each, after the second: target, uncorrected, prediction, visited.
HAND = [
    (0, 0, 0, [0]),  # right at once
    (0, 1, 0, [1, 0]),  # handed on to its own adapter: saved
    (0, 0, 1, [0, 1]),  # handed on to the other: spoiled
    (0, 1, 1, [1, 0, 1]),  # came back: kept, and wrong all along
    (1, 1, 1, [1]),
    (1, 0, 1, [0, 1]),  # saved
]


def hand() -> pd.DataFrame:
    rows = [
        {
            "experience": 1,
            "sample": sample,
            "target": target,
            "prediction": prediction,
            "target_experience": target,
            "uncorrected": uncorrected,
            "visited": visited,
            "adapter": visited[-1],
        }
        for sample, (target, uncorrected, prediction, visited) in enumerate(HAND)
    ]
    return pd.DataFrame(rows)


def load_section(tmp_path: Path) -> tuple[Group, RetrievalSection]:
    loaded = load_runs([tmp_path / "runs"])
    retrievals = read_retrievals(loaded)
    assert not loaded.broken, loaded.broken
    (group,) = group_runs(loaded.finished)
    return group, RetrievalSection(group, retrievals)


def measured(tmp_path: Path) -> Retrieval:
    (run,) = load_runs([tmp_path / "runs"]).finished
    found = measure_retrieval(run)
    assert found is not None
    return found


def choose(make_run: MakeRun, size: int = 4, seeds: int = 1, **options: Any) -> None:
    for seed in range(seeds):
        write_retrieving(make_run("mos", seed, sizes=(1,) * size), seed=seed, **options)
