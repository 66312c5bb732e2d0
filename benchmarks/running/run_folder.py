"""A run directory: its one writer, and the record that a run begins or goes on with."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from cl_adapters.benchmarks.running.learner import Runnable
from cl_adapters.benchmarks.running.parent import begin_from_parent
from cl_adapters.benchmarks.running.progress import Progress
from cl_adapters.benchmarks.running.reuse import find_begun
from cl_adapters.errors import InputError
from cl_adapters.paths import user_path
from cl_adapters.records.at_work import WRITER_WAITS
from cl_adapters.records.integrity import check_files
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions
from cl_adapters.records.upgrade import role_of

__all__ = ["make_folder", "only_writer", "opened_record", "refuse_inside_data", "time_now"]


def refuse_inside_data(folder: Path, planned: RunRecord) -> None:
    """Refuses a run directory inside the folder of its own images: the next run would read it.

    So it is for `--out .` beside `--data photos`, since runs lie in a folder with the data's name.

    Args:
        folder: The run directory, which need not exist.
        planned: The run's record.

    Raises:
        InputError: If it lies there.
    """
    parts = (*planned.config.get("datasets", []), *planned.config.get("continued", []))
    for data in (planned.config.get("data"), *(part["data"] for part in parts)):
        if data is not None and folder.resolve().is_relative_to(user_path(data).resolve()):
            raise InputError(
                f"--out must lead outside of the data, got {str(folder)!r}, which lies in {data!r}"
            )


def make_folder(folder: Path) -> None:
    """Makes a run directory.

    Raises:
        InputError: If that cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"run directory {str(folder)!r} must be writable, got: {error}") from error


@contextmanager
def only_writer(folder: Path, patience: float = 0) -> Iterator[None]:
    """Keeps other processes from writing to a run directory.

    Args:
        folder: The run directory.
        patience: Seconds to wait for another writer to end; at least so long as readers take to
            look for one.

    Raises:
        InputError: If there is another writer, or the folder cannot be written to.
    """
    lock = FileLock(folder / ".lock", timeout=max(patience, WRITER_WAITS))
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


def opened_record(
    folder: Path, prepared: Runnable, progress: Progress, *, restart: bool
) -> RunRecord:
    """Returns the record to go on with: a new one where a run begins, or has to begin again.

    Args:
        folder: The run directory.
        prepared: What is run.
        progress: Whom to tell what the user may not expect.
        restart: Drop what is there.

    Raises:
        InputError: If the directory holds another recipe's run, or not what its record says.
    """
    planned = prepared.record
    planned.role = role_of(planned.strategy, getattr(prepared.strategy, "role", None))
    if restart:
        _clear(folder)
    if not (folder / "run.json").exists():
        _note_begun(folder, planned, progress)
    record = _continue_from(folder, planned)
    return _first_if_needed(folder, record, prepared, progress)


def _continue_from(folder: Path, planned: RunRecord) -> RunRecord:
    if not (folder / "run.json").exists():
        _clear(folder)
        planned.started, planned.files = time_now(), {}
        if planned.parent is not None:
            begin_from_parent(folder, planned)
        return planned
    found = RunRecord.read(folder)
    for part in ("config", "fingerprint", "classes"):
        if getattr(found, part) != getattr(planned, part):
            raise InputError(
                f"run directory {str(folder)!r} must belong to this recipe, but its {part} "
                f"differs; choose another --out or --restart"
            )
    with _restart_advised():
        rows = read_predictions(folder)
    trained = set(rows["experience"].unique().tolist())
    if not set(range(found.experiences_done)) <= trained:
        raise InputError(
            f"run directory {str(folder)!r} must hold the predictions of {found.experiences_done} "
            f"experiences, got those of {len(trained)}; use --restart"
        )
    if found.state == "finished":
        with _restart_advised():
            check_files(folder)
    else:
        found.state, found.error, found.ended = "running", None, None
    return found


@contextmanager
def _restart_advised() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{error}; use --restart") from error


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


def _clear(folder: Path) -> None:
    # The record goes first: without it, whatever else a crash leaves behind counts for nothing.
    (folder / "run.json").unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def time_now() -> str:
    """Returns the present time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
