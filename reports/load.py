"""Finds run directories and turns each into a measured run, an unfinished or a broken one."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cl_adapters.errors import InputError, listed
from cl_adapters.records.event_kinds import Cache, Evaluation, Event, Memory, Phase
from cl_adapters.records.events import read_events
from cl_adapters.records.integrity import UNCHECKED, check_files
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.records.tables import PREDICTION_COLUMNS, read_predictions
from cl_adapters.reports import forgetting, metrics
from cl_adapters.reports.detail import Detail, measure_detail, phase_seconds
from cl_adapters.reports.experience_names import experience_names

__all__ = ["BrokenRun", "LoadedRuns", "Run", "load_runs", "measure"]

Value = TypeVar("Value")

Floats = NDArray[np.float64]

MEBIBYTE: Final = 2**20
_READ_LATER: Final = ("retrieval.parquet", "examples.parquet")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run and everything measured on it.

    Attributes:
        folder: The run directory.
        record: What stands in `run.json`.
        values: Value of each column of `definitions.COLUMNS` by name; NaN where unknown.
        matrix: R[t, i] in percent.
        seen: Micro accuracy over all classes seen, after each experience.
        forgetting: `forgetting_from_best` as it stood after each experience.
        classes: Accuracy of each class at the end, by position in the class order.
        detail: What is looked at of one method in depth.
        events: What the run noted on its way, read once for all that look at it.
        earlier_hits: Rows of the feature cache that an earlier run had computed.
    """

    folder: Path
    record: RunRecord
    values: dict[str, float]
    matrix: Floats
    seen: Floats
    forgetting: Floats
    classes: "pd.Series[float]"
    detail: Detail
    events: Sequence[Event] = field(repr=False)
    earlier_hits: int = 0

    @property
    def experience_names(self) -> list[str]:
        """What each experience is called, empty texts where nothing is known."""
        names = experience_names([self.record])
        return names or [""] * len(self.record.experiences)


@dataclass(frozen=True, kw_only=True)
class BrokenRun:
    """A run directory that could not be read, and the sentence that says why."""

    folder: Path
    reason: str


@dataclass(kw_only=True)
class LoadedRuns:
    """All that was found below the folders of runs."""

    finished: list[Run] = field(default_factory=list)
    unfinished: list[tuple[Path, RunRecord]] = field(default_factory=list)
    broken: list[BrokenRun] = field(default_factory=list)
    unchecked: int = 0  # runs that an earlier version wrote, without digests
    continued: list[tuple[Path, Path]] = field(default_factory=list)  # and by which run each

    def notes(self) -> list[str]:
        """Returns what a reader of these runs should know."""
        found = [UNCHECKED.format(number=self.unchecked)] if self.unchecked else []
        for by in dict.fromkeys(by for _, by in self.continued):
            parts = listed(str(folder) for folder, other in self.continued if other == by)
            found.append(f"Not counted by itself: {parts}, with which {by} goes on.")
        return found

    def read_all(self, read: Callable[[Run], Value | None]) -> dict[Path, Value]:
        """Returns what is read of each finished run that has it, by its folder.

        A run of which it cannot be read becomes a broken one, as with other damage.

        Args:
            read: Reads one run, None if there is nothing; raises `InputError` for a damaged one.
        """
        values: dict[Path, Value] = {}
        kept: list[Run] = []
        for run in self.finished:
            try:
                value = read(run)
            except InputError as error:
                self.broken.append(BrokenRun(folder=run.folder, reason=str(error)))
            else:
                kept.append(run)
                if value is not None:
                    values[run.folder] = value
        self.finished = kept
        self.broken.sort(key=lambda run: run.folder)
        return values


def load_runs(folders: Sequence[str | Path]) -> LoadedRuns:
    """Reads every run directory at or below the folders; a damaged one is named and skipped.

    Raises:
        InputError: If a folder does not exist or none of them holds a run.
    """
    found = sorted({folder.resolve() for folder in find_runs(folders)})
    if not found:
        names = ", ".join(repr(str(folder)) for folder in folders)
        raise InputError(f"run folders must hold at least one run.json, found none below {names}")
    loaded = LoadedRuns()
    for folder in found:
        try:
            record = RunRecord.read(folder)
            loaded.unchecked += record.files is None
            if record.state != "finished":
                check_files(folder)
                loaded.unfinished.append((folder, record))
            else:
                loaded.finished.append(measure(folder, record))
        except (OSError, ValueError) as error:
            loaded.broken.append(BrokenRun(folder=folder, reason=str(error)))
    _leave_out_beginnings(loaded)
    return loaded


def _leave_out_beginnings(loaded: LoadedRuns) -> None:
    """Takes out each run that a finished one goes on with: it is part of that one's curve."""
    going_on: dict[str, Path] = {}
    for run in sorted(loaded.finished, key=lambda run: len(run.record.seams)):
        note = run.record.parent
        while note:
            going_on[note["sha256"]] = run.folder  # in the end, of the longest
            note = note.get("parent")
    if not going_on:
        return
    kept = []
    for run in loaded.finished:
        by = going_on.get(hashlib.sha256((run.folder / "run.json").read_bytes()).hexdigest())
        if by is None:
            kept.append(run)
        else:
            loaded.continued.append((run.folder, by))
    loaded.finished = kept


def measure(folder: Path, record: RunRecord) -> Run:
    """Computes every metric of one finished run, or of the finished part of one.

    Args:
        folder: The run directory.
        record: Its record; of a part, with the experiences of that part alone.

    Raises:
        InputError: If its predictions or events are damaged or do not fit its record.
    """
    check_files(folder, _READ_LATER)
    predictions = read_predictions(folder)
    if record.state != "finished":  # the next experience may stand there already
        predictions = predictions[predictions["experience"] < len(record.experiences)]
    _check_predictions(predictions, record)
    matrix = metrics.accuracy_matrix(predictions)
    seen = metrics.micro_accuracy(predictions)
    events = read_events(folder)
    values = _scores(predictions, matrix, seen) | _costs(events, record)
    values["kept_mebibytes"] = _kept(folder, record)
    return Run(
        folder=folder,
        record=record,
        values=values,
        events=events,
        earlier_hits=sum(event.earlier_hits for event in events if isinstance(event, Cache)),
        matrix=matrix,
        seen=seen,
        forgetting=forgetting.forgetting_over_time(matrix),
        classes=metrics.class_accuracy(predictions),
        detail=measure_detail(predictions, len(record.classes), phase_seconds(events)),
    )


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _scores(predictions: pd.DataFrame, matrix: Floats, seen: Floats) -> dict[str, float]:
    task_mean = metrics.task_mean_accuracy(matrix)
    last = predictions[predictions["experience"] == matrix.shape[0] - 1]
    last = last[last["target_experience"] <= last["experience"]]
    is_correct = last["prediction"].to_numpy() == last["target"].to_numpy()
    return {
        "a_last_micro": float(seen[-1]),
        "a_last_task_mean": float(task_mean[-1]),
        "a_avg_micro": _mean(seen),
        "a_avg_task_mean": _mean(task_mean),
        "forgetting_from_best": forgetting.forgetting_from_best(matrix),
        "forgetting_from_best_before": forgetting.forgetting_from_best_before(matrix),
        "forgetting_from_first": forgetting.forgetting_from_first(matrix),
        "bwt": forgetting.bwt(matrix),
        "fwt_without_baseline": forgetting.fwt_without_baseline(matrix),
        "ece": metrics.ece(last["confidence"].to_numpy(np.float64), is_correct),
        "nll": _mean(last["nll"].to_numpy(np.float64)),
    }


def _costs(events: list[Event], record: RunRecord) -> dict[str, float]:
    evaluations = [event for event in events if isinstance(event, Evaluation)]
    phases = [event for event in events if isinstance(event, Phase)]
    peaks = [event.peak_bytes for event in events if isinstance(event, Memory)]
    last = evaluations[-1].passes if evaluations else None
    seconds = [math.fsum(event.seconds for event in kind) for kind in (phases, evaluations)]
    return {
        "added_parameters": _number(record.parameters, "added"),
        "train_seconds": seconds[0] if phases else math.nan,
        "evaluation_seconds": seconds[1] if evaluations else math.nan,
        "passes_per_image": math.nan if last is None else last,
        "peak_mebibytes": max(peaks) / MEBIBYTE if peaks else math.nan,
    }


def _kept(folder: Path, record: RunRecord) -> float:
    place = folder / "checkpoints" / f"experience-{record.experiences_done - 1:04d}"
    try:
        return (place / "learned.safetensors").stat().st_size / MEBIBYTE
    except OSError:  # a record that was copied without its checkpoints
        return math.nan


def _number(values: dict[str, Any], name: str) -> float:
    value = values.get(name)
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name} must be a number, got {value!r}")
    return float(value)


def _check_predictions(predictions: pd.DataFrame, record: RunRecord) -> None:
    num_experiences, num_classes = len(record.experiences), len(record.classes)
    limits = {
        "experience": num_experiences,
        "target_experience": num_experiences,
        "target": num_classes,
        "prediction": num_classes,
    }
    for name in PREDICTION_COLUMNS:
        column = predictions[name]
        if not pd.api.types.is_numeric_dtype(column) or column.isna().any():
            raise InputError(f"predictions.parquet: {name} must hold numbers only")
        if name in limits and not column.between(0, limits[name] - 1).all():
            raise InputError(f"predictions.parquet: {name} must lie in [0, {limits[name]})")
    if not predictions["confidence"].between(0.0, 1.0 + 1e-6).all():
        raise InputError("predictions.parquet: confidence must lie in [0, 1]")
    if predictions.duplicated(["experience", "target_experience", "sample"]).any():
        raise InputError(
            "predictions.parquet: a sample must stand once per experience and target_experience"
        )
    last = predictions["experience"].max() if len(predictions) else None
    if last != num_experiences - 1:
        raise InputError(
            f"predictions.parquet: a finished run must hold experience {num_experiences - 1}, "
            f"the last one, got {last}"
        )
