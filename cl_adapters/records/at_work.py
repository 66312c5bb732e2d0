"""Whether a process is writing to a run directory, asked without keeping anybody out of it.

A writer holds the exclusive lock of `filelock`, which is that of `flock`. Who reads asks for the
shared one, for a moment only: readers do not notice each other, and a writer that begins at that
moment waits (`WRITER_WAITS`).
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from cl_adapters.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, where readers are told from writers by filelock alone
    fcntl = None  # type: ignore[assignment]

__all__ = ["WRITER_WAITS", "check_not_at_work"]

# Seconds that a writer waits for readers that look whether there is one, which takes far less.
WRITER_WAITS: Final = 1.0


def check_not_at_work(folder: Path) -> None:
    """Refuses a run directory that is being written.

    Raises:
        InputError: If another process writes to it.
    """
    place = folder / ".lock"
    if place.exists() and _is_held(place):
        raise InputError(
            f"run {str(folder)!r} must not be at work, but another process writes to it"
        )


def _is_held(place: Path) -> bool:
    if fcntl is None:
        try:
            with FileLock(place, timeout=WRITER_WAITS):
                return False
        except Timeout:
            return True
    with suppress(OSError):  # what cannot be opened or locked has no writer of ours
        file = os.open(place, os.O_RDONLY)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)  # lets go
    return False
