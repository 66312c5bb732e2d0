"""Runs one recipe into one run directory: train, evaluate, record, and continue where it stopped.

The place that seeds global random states (transforms and dropout draw from them) and that times.
The global states are as before when `run` returns. After each experience predictions, events and a
checkpoint are written first and `run.json` last; `experiences_done` in it is what counts. In a long
experience its training is kept every few minutes. So a run that was killed at any moment continues
from the last checkpoint that is whole and ends with the predictions of an uninterrupted one.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypedDict, Unpack

import pandas as pd
import torch
from avalanche.logging import BaseLogger
from filelock import FileLock, Timeout

from cl_adapters.benchmarks.running.checkpoints import (
    CHECKPOINT_MINUTES,
    ExperienceCheckpoint,
    last_whole,
    trainer_states_of,
    write_checkpoint,
)
from cl_adapters.benchmarks.running.examples import draw_examples
from cl_adapters.benchmarks.running.logs import MethodLog, check_loggers, open_logs, write_log
from cl_adapters.benchmarks.running.memory import FreedMemory, peak_bytes
from cl_adapters.benchmarks.running.observer import Observer
from cl_adapters.benchmarks.running.reuse import find_begun, find_trained, learn
from cl_adapters.benchmarks.streams.plans import StreamPlan
from cl_adapters.errors import InputError, RunError
from cl_adapters.randomness import (
    kept_random_states,
    seed_random_states,
    set_random_states,
)
from cl_adapters.records.events import append_event, append_events, read_events, truncate_events
from cl_adapters.records.run_record import RunRecord, verify_checksum
from cl_adapters.records.tables import (
    read_predictions,
    read_retrieval,
    write_examples,
    write_predictions,
    write_retrieval,
)
from cl_adapters.strategies.core.checkpointing import CheckpointMismatchError
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.strategies.core.views import FixedViews

__all__ = [
    "Progress",
    "Runnable",
    "Running",
    "StopRun",
    "only_writer",
    "run",
    "run_stepwise",
]


class Runnable(Protocol):
    """What can be run: a prepared recipe, or a strategy over a benchmark that is not ours."""

    @property
    def strategy(self) -> AdapterStrategy:
        """What learns; used up by the run."""

    @property
    def plan(self) -> StreamPlan:
        """What each experience holds."""

    @property
    def record(self) -> RunRecord:
        """What goes into `run.json`."""

    @property
    def threads(self) -> int | None:
        """CPU threads; None for torch's choice."""

    def benchmark(self) -> Any:  # noqa: ANN401 - Avalanche ships no types
        """Returns Avalanche's train and test streams, classes by position in the plan's order."""


class StopRun(Exception):  # noqa: N818 - no error
    """Raised by who watches a run and has seen enough; its text goes into the record."""


class Progress:
    """What a caller may show; this one shows nothing."""

    def start(self, title: str, total: int) -> None:
        """A run begins; `total` counts the images of all its passes."""

    def advance(self, text: str, images: int) -> None:
        """Images were dealt with; `text` says what is going on."""

    def note(self, text: str) -> None:
        """Something happens that the user may not expect."""

    def stored(self, folder: Path, experience: int) -> None:
        """An experience has been trained, evaluated and stored; a `StopRun` ends the run here."""


class Running(TypedDict, total=False):
    """How a run is run, which changes nothing about its result.

    Attributes:
        restart: Begin again, dropping what is there.
        checkpoint_minutes: Time between two checkpoints inside an experience; 0 writes one after
            each step.
        loggers: Names of `LOGGERS`, which copy the record into `tensorboard/` or `wandb/` of the
            run directory.
    """

    restart: bool
    checkpoint_minutes: float
    loggers: Sequence[str]


def run(
    prepared: Runnable,
    out: Path,
    *,
    progress: Progress | None = None,
    **running: Unpack[Running],
) -> Path:
    """Runs what was prepared and returns its run directory.

    A finished run is left as it is; an unfinished one continues, unless its strategy keeps what no
    checkpoint holds: then it begins again.

    Args:
        prepared: What `prepare` returned, or its like; used up by the run.
        out: Folder of all runs.
        progress: What to tell the caller.
        **running: See `Running`.

    Raises:
        InputError: If a logger is unknown or cannot write, the directory holds another recipe's run
            or another process writes to it.
        RunError: If the loss is no longer finite.
        StopRun: If `progress` has seen enough.
    """
    for _ in run_stepwise(prepared, out, progress=progress, **running):
        pass
    return out / prepared.record.directory


def run_stepwise(
    prepared: Runnable,
    out: Path,
    *,
    progress: Progress | None = None,
    patience: float = 0,
    **running: Unpack[Running],
) -> Iterator[Path]:
    """Does what `run` does; yields the run directory after each experience but the last.

    Args:
        prepared: As for `run`.
        out: As for `run`.
        progress: As for `run`.
        patience: Seconds to wait for another writer of the directory to end.
        **running: As for `run`.
    """
    restart, loggers = running.get("restart", False), running.get("loggers", ())
    check_loggers(loggers)
    folder = out / prepared.record.directory
    progress = progress or Progress()
    _make_folder(folder)
    with only_writer(folder, patience):
        if restart:
            _clear(folder)
        if not (folder / "run.json").exists():
            _note_begun(folder, prepared.record, progress)
        record = _continue_from(folder, prepared.record)
        record = _first_if_needed(folder, record, prepared, progress)
        if record.state != "finished":
            options = prepared.strategy.config.evaluation_options
            trained = None if restart else find_trained(folder, record, options)
            minutes = running.get("checkpoint_minutes", CHECKPOINT_MINUTES)
            with open_logs(loggers, folder, record) as logs:
                session = _Session(prepared, folder, progress, trained, minutes)
                session.log_to(logs)
                with _threads(prepared.threads), kept_random_states():
                    for _ in session.run(record):
                        yield folder
        else:
            write_log(loggers, folder, record)


@contextmanager
def only_writer(folder: Path, patience: float = 0) -> Iterator[None]:
    """Keeps other processes from writing to a run directory.

    Args:
        folder: The run directory.
        patience: Seconds to wait for another writer to end.

    Raises:
        InputError: If there is another writer, or the folder cannot be written to.
    """
    lock = FileLock(folder / ".lock", timeout=patience)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"run directory {str(folder)!r} must have one writer, another is at work"
        ) from error
    except OSError as error:
        raise InputError(f"run directory {str(folder)!r} must be writable, got: {error}") from error
    try:
        yield
    finally:
        lock.release()


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
    verify_checksum(folder)
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


def _note_begun(folder: Path, planned: RunRecord, progress: Progress) -> None:
    begun = find_begun(folder, planned)
    if begun is not None:
        other, values = begun
        ours = {name: planned.config[name] for name in values}
        progress.note(
            f"{planned.strategy} seed {planned.seed} begins a new run with {_as_text(ours)}; "
            f"{other} is unfinished and goes on with {_as_text(values)}"
        )


def _as_text(values: Mapping[str, object]) -> str:
    return ", ".join(
        f"no {name} given" if value is None else f"{name}={value}" for name, value in values.items()
    )


def _first_if_needed(
    folder: Path, found: RunRecord, prepared: Runnable, progress: Progress
) -> RunRecord:
    """Returns the record to go on with: a new one where a begun run cannot be continued."""
    is_begun = found.experiences_done > 0 and found.state != "finished"
    if prepared.strategy.resumes or not is_begun:
        return found
    progress.note(
        f"{found.strategy} seed {found.seed} begins again from the first experience, since a "
        "checkpoint does not hold all that it keeps"
    )
    _clear(folder)
    return _continue_from(folder, prepared.record)


class _Session:
    """What is left of a run, from the last checkpoint to its end or to the next interruption."""

    def __init__(
        self,
        prepared: Runnable,
        folder: Path,
        progress: Progress,
        trained: Path | None,
        checkpoint_minutes: float,
    ) -> None:
        self._prepared, self._folder, self._progress = prepared, folder, progress
        self._trained = trained
        self._strategy = prepared.strategy
        self._inside = ExperienceCheckpoint(folder / "checkpoints", checkpoint_minutes)
        self._freed = FreedMemory()
        self._observer = Observer(prepared.plan, self._advance)

    def log_to(self, logs: Sequence[BaseLogger]) -> None:
        """Tells loggers what the record will hold, while it comes about."""
        if logs:
            self._observer = MethodLog(logs, self._prepared.plan, self._advance)

    def _advance(self, doing: str, images: int) -> None:
        self._progress.advance(doing, images)
        self._freed.give_back()

    def run(self, record: RunRecord) -> Iterator[int]:
        """Trains, evaluates and stores one experience after the other; yields between them."""
        prepared, folder = self._prepared, self._folder
        self._benchmark = prepared.benchmark()
        prepared.strategy.plugins.insert(0, self._observer)
        done = self._restore(record)
        if isinstance(self._observer, MethodLog):
            self._observer.restore(folder, done)
        found = read_predictions(folder), read_retrieval(folder)
        tables = [[table[table["experience"] < done]] for table in found]
        truncate_events(folder, done)
        _check_segments(folder, prepared.plan)
        self._progress.start(f"{record.strategy} seed {record.seed}", _total_images(prepared, done))
        if prepared.strategy.cache is not None:
            prepared.strategy.cache.begin()
        record.write(folder)
        with _noted_end(record, folder):
            for experience in range(done, len(record.experiences)):
                new = self._experience(experience)
                tables = [[*table, rows] for table, rows in zip(tables, new, strict=True)]
                whole = [pd.concat(table, ignore_index=True) for table in tables]
                _store(prepared, record, folder, self._observer, whole)
                record.seconds += self._inside.seconds
                record.experiences_done = experience + 1
                record.write(folder)
                self._inside.drop()
                self._progress.stored(folder, experience)
                if record.experiences_done < len(record.experiences):
                    yield experience
            self._inside.drop()  # if all was done but this
            _keep_examples(prepared, folder)

    def _restore(self, record: RunRecord) -> int:
        """Returns to the last experience whose checkpoint is whole; says how many those are."""
        for torn in self._folder.rglob(".*.tmp"):  # of a process that was killed while it wrote
            torn.unlink()
        noted = _noted_experiences(self._folder, record.experiences_done)
        done, state, problem = last_whole(self._folder / "checkpoints", noted)
        if noted < record.experiences_done:
            problem = (
                f"{self._folder / 'events.jsonl'} must hold experience {noted}, but it does not"
            )
        now = self._prepared.record.versions
        other = [name for name in now if record.versions.get(name) != now[name]]
        if record.experiences_done and other:
            self._progress.note(
                f"{record.strategy} seed {record.seed} goes on under another version of "
                f"{', '.join(other)}: the rest may differ from an uninterrupted run"
            )
        if problem:
            again = f"from experience {done} on" if done else "from the first experience on"
            self._progress.note(f"{problem}; the run is done again {again}")
            record.experiences_done = done
        if done:
            self._strategy.restore(state, list(self._benchmark.train_stream[:done]))
        return done

    def _experience(self, experience: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Returns the rows of `predictions.parquet` and of `retrieval.parquet`."""
        seed_random_states(self._prepared.record.seed, experience)
        self._train(experience)
        # A segment that was announced without a change brings no test images of its own.
        stream = self._benchmark.test_stream[: experience + 1]
        self._strategy.eval([each for each in stream if len(each.dataset)])
        predictions = self._observer.predictions(experience)
        return predictions, self._observer.retrieval(predictions)

    def _train(self, experience: int) -> None:
        found = self._inside.begin(experience)
        given = self._benchmark.train_stream[experience]
        if not (self._strategy.resumes and self._strategy.resumes_inside):
            learn(self._strategy, given, self._trained)
            return
        self._strategy.set_checkpointer(self._inside)
        if found is not None and "trained" in found[1]:
            facts = found[1]["trained"]
            self._strategy.restore(found[0], [given])
            self._strategy.load_progress(facts["events"], facts["timings"])
            self._observer.load_state_dict(facts["observer"])
            set_random_states(facts["random"])
            return
        if found is not None:
            self._strategy.load_state(trainer_states_of(found))
        try:
            learn(self._strategy, given, self._trained)
        except CheckpointMismatchError as error:
            self._inside.drop()
            raise RunError(
                f"{error}; the same command begins experience {experience} again"
            ) from error
        if self._inside.is_due():
            self._inside.keep_trained(self._strategy, self._observer.state_dict())


def _noted_experiences(folder: Path, done: int) -> int:
    """Returns how many of the finished experiences stand in the events from first to last."""
    noted = {event["experience"] for event in read_events(folder) if event["event"] == "memory"}
    return next((each for each in range(done) if each not in noted), done)


def _keep_examples(prepared: Runnable, folder: Path) -> None:
    # A benchmark that is not ours has tensors, no pictures.
    pixels = getattr(prepared, "test_pixels", None)
    if pixels is not None:
        examples = draw_examples(read_predictions(folder), pixels)
        if len(examples):
            write_examples(folder, examples)


def _check_segments(folder: Path, plan: StreamPlan) -> None:
    # Features that another machine computes may differ in the last digit, and a boundary with them.
    planned = plan.hidden.facts if plan.hidden else ()
    for event in read_events(folder):
        if event["event"] == "segment" and any(
            event[key] != planned[event["experience"]][key] for key in ("start", "images")
        ):
            raise InputError(
                f"run directory {str(folder)!r} must go on with the segments that it began with, "
                f"but segment {event['experience']} now differs; use --restart"
            )


@contextmanager
def _noted_end(record: RunRecord, folder: Path) -> Iterator[None]:
    try:
        yield
        record.state, record.ended = "finished", _now()
        record.write(folder)
    except KeyboardInterrupt:
        record.state, record.error = "interrupted", "stopped by the user"
        raise
    except StopRun as reason:
        record.state, record.error = "interrupted", str(reason)
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


def _store(
    prepared: Runnable,
    record: RunRecord,
    folder: Path,
    observer: Observer,
    tables: Sequence[pd.DataFrame],
) -> None:
    predictions, retrieval = tables
    experience = record.experiences_done
    model = prepared.strategy.model
    backbone = sum(value.numel() for value in prepared.strategy.backbone.parameters())
    added = sum(value.numel() for value in prepared.strategy.learned_state().values())
    trainable = sum(value.numel() for value in model.parameters() if value.requires_grad)
    record.parameters = {"backbone": backbone, "added": added}
    write_predictions(folder, predictions)
    if len(retrieval):
        write_retrieval(folder, retrieval)
    for name, (seconds, images) in (*observer.phases.items(), *prepared.strategy.timings.items()):
        losses = {"losses": observer.losses[name]} if name in observer.losses else {}
        append_event(folder, "phase", experience, seconds, name=name, images=images, **losses)
    append_events(folder, prepared.strategy.pop_events(experience))
    _note_cache(prepared.strategy, folder, experience)
    if prepared.plan.domains:
        truth = prepared.plan.domains[experience].truth()
        append_event(folder, "domain", experience, 0, **truth)
    if prepared.plan.hidden:
        append_event(folder, "segment", experience, 0, **prepared.plan.hidden.facts[experience])
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
    append_event(folder, "memory", experience, 0, peak_bytes=peak_bytes(prepared.strategy.device))
    write_checkpoint(folder / "checkpoints", experience, prepared.strategy.learned_state())


def _note_cache(strategy: AdapterStrategy, folder: Path, experience: int) -> None:
    cache, views = strategy.cache, strategy.augmentation.views
    if cache is None:
        append_event(folder, "cache", experience, 0, mode="off", read=0, computed=0, inherited=0)
        return
    cache.flush()
    read, computed, inherited = cache.take_counts()
    counts = {"read": read, "computed": computed, "inherited": inherited}
    mode = f"{views.count} fixed views" if isinstance(views, FixedViews) else "exact"
    append_event(folder, "cache", experience, 0, mode=mode, **counts)


def _total_images(prepared: Runnable, done: int) -> int:
    # Every image of an experience once an epoch, and all test images so far after each experience.
    plan, epochs = prepared.plan, prepared.strategy.train_epochs
    train, test = ([len(rows) for rows in parts] for parts in (plan.train, plan.test))
    return sum(epochs * train[t] + sum(test[: t + 1]) for t in range(done, len(train)))


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
