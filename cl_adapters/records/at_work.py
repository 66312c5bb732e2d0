"""Whether a process is writing to a run directory, asked without writing there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cl_adapters.errors import InputError

__all__ = ["not_at_work"]


@contextmanager
def not_at_work(folder: Path) -> Iterator[None]:
    """Refuses a run directory that is being written, and keeps writers away meanwhile.

    Raises:
        InputError: If another process writes to it.
    """
    place = folder / ".lock"
    if not place.exists():
        yield
        return
    lock = FileLock(place, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"run {str(folder)!r} must not be at work, but another process writes to it"
        ) from error
    except OSError:  # a folder that only may be read has no writer of ours
        yield
        return
    try:
        yield
    finally:
        lock.release()
