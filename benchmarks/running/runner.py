"""Runs one recipe into one run directory: train, evaluate, record, and continue where it stopped.

A run that was killed at any moment continues from the last checkpoint that is whole and ends with
the predictions of an uninterrupted one (`session`). The global random states are as before when
`run` returns.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict, Unpack

import torch

from cl_adapters.benchmarks.running.checkpoints import CHECKPOINT_MINUTES
from cl_adapters.benchmarks.running.learner import Runnable
from cl_adapters.benchmarks.running.logs import check_loggers, open_logs, write_log
from cl_adapters.benchmarks.running.progress import Progress, StopRun
from cl_adapters.benchmarks.running.reuse import find_trained
from cl_adapters.benchmarks.running.run_folder import (
    make_folder,
    only_writer,
    opened_record,
    refuse_inside_data,
)
from cl_adapters.benchmarks.running.session import Session
from cl_adapters.errors import InputError
from cl_adapters.randomness import kept_random_states
from cl_adapters.records.run_record import find_run_folder

__all__ = [
    "Progress",
    "Runnable",
    "Running",
    "StopRun",
    "only_writer",
    "run",
    "run_stepwise",
]


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
            or another process writes to it, or an experience is too small for the strategy.
        RunError: If the loss is no longer finite.
        StopRun: If `progress` has seen enough.
    """
    folder = find_run_folder(out, prepared.record)
    for _ in run_stepwise(prepared, out, progress=progress, **running):
        pass
    return folder


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
    folder = find_run_folder(out, prepared.record)
    progress = progress or Progress()
    refuse_inside_data(folder, prepared.record)
    make_folder(folder)
    with only_writer(folder, patience):
        record = opened_record(folder, prepared, progress, restart=restart)
        if record.state == "finished":
            write_log(loggers, folder, record)
            return
        _refuse_small_experiences(prepared, record.experiences_done)
        options = prepared.strategy.config.evaluation_options
        trained = None if restart else find_trained(folder, record, options)
        minutes = running.get("checkpoint_minutes", CHECKPOINT_MINUTES)
        with open_logs(loggers, folder, record) as logs:
            session = Session(prepared, folder, progress, trained, minutes)
            session.log_to(logs)
            with _threads(prepared.threads), kept_random_states():
                for _ in session.run(record):
                    yield folder


def _refuse_small_experiences(prepared: Runnable, done: int) -> None:
    # Known from the plan, and not hours later when it is the experience's turn. Methods that ask
    # no detector do not say how many.
    least: int = getattr(prepared.strategy, "least_images", 1)
    sizes = [len(each) for each in prepared.plan.train]
    for number, size in enumerate(sizes[done:], start=done + 1):
        if size < least:
            raise InputError(
                f"experience {number} of {len(sizes)} must hold at least {least} training images "
                f"for the detectors of {prepared.record.strategy!r}, got {size}"
            )


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
