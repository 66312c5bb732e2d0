"""Runs one recipe into one run directory: train, evaluate, record, and continue where it stopped.

The only place that seeds global random states (transforms and dropout draw from them) and that
times. The global states are as before when `run` returns. After each experience predictions,
events and a checkpoint are written first and `run.json` last; `experiences_done` in it is what
counts, so a run that was killed at any moment continues from the last finished experience and ends
with the predictions of an uninterrupted one.
"""

import random
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout

from cl_adapters.benchmarks.checkpoints import read_checkpoint, write_checkpoint
from cl_adapters.benchmarks.observer import Observer
from cl_adapters.benchmarks.prepare import PreparedRun
from cl_adapters.benchmarks.streams import make_benchmark
from cl_adapters.errors import InputError, RunError
from cl_adapters.records import (
    RunRecord,
    append_event,
    append_events,
    read_predictions,
    read_retrieval,
    truncate_events,
    write_predictions,
    write_retrieval,
)

__all__ = ["Progress", "run"]


class Progress:
    """What a caller may show; this one shows nothing."""

    def start(self, title: str, total: int) -> None:
        """A run begins; `total` counts the images of all its passes."""

    def advance(self, text: str, images: int) -> None:
        """Images were dealt with; `text` says what is going on."""


def run(
    prepared: PreparedRun,
    out: Path,
    *,
    restart: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Runs what was prepared and returns its run directory.

    A finished run is left as it is; an unfinished one continues.

    Args:
        prepared: What `prepare` returned; used up by the run.
        out: Folder of all runs.
        restart: Begin again, dropping what is there.
        progress: What to tell the caller.

    Raises:
        InputError: If the directory holds another recipe's run or another process writes to it.
        RunError: If the loss is no longer finite.
    """
    folder = out / prepared.record.directory
    _make_folder(folder)
    try:
        with FileLock(folder / ".lock", timeout=0):
            if restart:
                _clear(folder)
            record = _continue_from(folder, prepared.record)
            if record.state != "finished":
                with _threads(prepared.config.threads), _kept_random_states():
                    _run_all(prepared, record, folder, progress or Progress())
    except Timeout as error:
        raise InputError(
            f"run directory {str(folder)!r} must have one writer, another is at work"
        ) from error
    return folder


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"run directory {str(folder)!r} must be writable, got: {error}") from error


def _clear(folder: Path) -> None:
    # The record goes first: without it, whatever else a crash leaves behind counts for nothing.
    (folder / "run.json").unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _continue_from(folder: Path, planned: RunRecord) -> RunRecord:
    if not (folder / "run.json").exists():
        _clear(folder)
        planned.started = _now()
        return planned
    found = RunRecord.read(folder)
    for part in ("config", "fingerprint", "classes"):
        if getattr(found, part) != getattr(planned, part):
            raise InputError(
                f"run directory {str(folder)!r} must belong to this recipe, but its {part} "
                f"differs; choose another --out or --restart"
            )
    trained = set(read_predictions(folder)["experience"].unique().tolist())
    if not set(range(found.experiences_done)) <= trained:
        raise InputError(
            f"run directory {str(folder)!r} must hold the predictions of {found.experiences_done} "
            f"experiences, got those of {len(trained)}; use --restart"
        )
    if found.state != "finished":
        found.state, found.error, found.ended = "running", None, None
    return found


def _run_all(prepared: PreparedRun, record: RunRecord, folder: Path, progress: Progress) -> None:
    benchmark = make_benchmark(prepared.source, prepared.plan, prepared.preprocess)
    observer = Observer(prepared.plan, progress.advance)
    prepared.strategy.plugins.insert(0, observer)
    done = record.experiences_done
    found = read_predictions(folder), read_retrieval(folder)
    tables = [[table[table["experience"] < done]] for table in found]
    truncate_events(folder, done)
    if done:
        state = read_checkpoint(folder / "checkpoints", done - 1)
        prepared.strategy.restore(state, list(benchmark.train_stream[:done]))
    progress.start(f"{record.strategy} seed {record.seed}", _total_images(prepared, done))
    record.write(folder)
    with _noted_end(record, folder):
        for experience in range(done, len(record.experiences)):
            since = time.perf_counter()
            new = _run_experience(prepared, benchmark, observer, experience)
            tables = [[*table, rows] for table, rows in zip(tables, new, strict=True)]
            whole = [pd.concat(table, ignore_index=True) for table in tables]
            _store(prepared, record, folder, observer, whole)
            record.seconds += time.perf_counter() - since
            record.experiences_done = experience + 1
            record.write(folder)


@contextmanager
def _noted_end(record: RunRecord, folder: Path) -> Iterator[None]:
    try:
        yield
        record.state, record.ended = "finished", _now()
        record.write(folder)
    except KeyboardInterrupt:
        record.state, record.error = "interrupted", "stopped by the user"
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        record.state, record.error = "failed", "out of memory"
        raise RunError("memory must hold the model and a batch, and did not") from error
    except (InputError, RunError, OSError) as error:
        record.state, record.error = "failed", str(error)
        raise
    finally:
        if record.state != "finished":
            with suppress(OSError):  # a full disk: the record of the last experience stays
                record.write(folder)


def _run_experience(
    prepared: PreparedRun,
    benchmark: Any,  # noqa: ANN401 - Avalanche ships no types
    observer: Observer,
    experience: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the rows of `predictions.parquet` and of `retrieval.parquet`."""
    _seed_global_states(prepared.config.seed, experience)
    prepared.strategy.train(benchmark.train_stream[experience], eval_streams=[])
    prepared.strategy.eval(benchmark.test_stream[: experience + 1])
    predictions = observer.predictions(experience)
    return predictions, observer.retrieval(predictions)


def _store(
    prepared: PreparedRun,
    record: RunRecord,
    folder: Path,
    observer: Observer,
    tables: Sequence[pd.DataFrame],
) -> None:
    predictions, retrieval = tables
    experience = record.experiences_done
    model = prepared.strategy.model
    backbone = sum(value.numel() for value in prepared.backbone.model.parameters())
    added = sum(value.numel() for value in prepared.strategy.learned_state().values())
    trainable = sum(value.numel() for value in model.parameters() if value.requires_grad)
    record.parameters = {"backbone": backbone, "added": added}
    write_predictions(folder, predictions)
    if len(retrieval):
        write_retrieval(folder, retrieval)
    for name, (seconds, images) in (*observer.phases.items(), *prepared.strategy.timings.items()):
        append_event(folder, "phase", experience, seconds, name=name, images=images)
    append_events(folder, prepared.strategy.take_events(experience))
    if prepared.plan.domains:
        truth = prepared.plan.domains[experience].truth()
        append_event(folder, "domain", experience, 0, **truth)
    seconds, images, passes = observer.evaluation
    append_event(folder, "evaluation", experience, seconds, images=images, passes=passes / images)
    append_event(
        folder,
        "parameters",
        experience,
        0,
        trainable=trainable,
        added=added,
        total=backbone + added,
    )
    append_event(folder, "memory", experience, 0, peak_bytes=_peak_bytes(prepared.strategy.device))
    write_checkpoint(folder / "checkpoints", experience, prepared.strategy.learned_state())


def _total_images(prepared: PreparedRun, done: int) -> int:
    # Every image of an experience once an epoch, and all test images so far after each experience.
    plan, epochs = prepared.plan, prepared.strategy.train_epochs
    train, test = ([len(rows) for rows in parts] for parts in (plan.train, plan.test))
    return sum(epochs * train[t] + sum(test[: t + 1]) for t in range(done, len(train)))


def _seed_global_states(seed: int, experience: int) -> None:
    mixed = int(np.random.SeedSequence([seed, experience]).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002 - for third-party transforms that draw from it
    torch.manual_seed(mixed)


@contextmanager
def _kept_random_states() -> Iterator[None]:
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts kilobytes
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
