"""Files that are whole or not there: atomic writing, checksums, formats."""

import errno
import hashlib
import json
import os
import signal
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cl_adapters.errors import InputError

__all__ = [
    "FORMAT_VERSION",
    "add_checksum",
    "atomic_path",
    "check_format",
    "delayed_ctrl_c",
    "digest",
    "has_valid_checksum",
    "read_file",
]

FORMAT_VERSION: Final = 5


def digest(value: object, length: int = 16) -> str:
    """Returns the first hex digits of the SHA-256 of a value's canonical JSON.

    Example:
        >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
        True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def add_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values with the `checksum` of them all.

    Example:
        >>> whole = add_checksum({"format": 3, "seed": 1})
        >>> has_valid_checksum(whole), has_valid_checksum({**whole, "seed": 7})
        (True, False)
    """
    return {**values, "checksum": digest(values, 64)}


def has_valid_checksum(values: Mapping[str, Any]) -> bool:
    """Says whether the values are those that `add_checksum` was given; format 1 could not say."""
    rest = {name: value for name, value in values.items() if name != "checksum"}
    if values.get("format") == 1 and "checksum" not in values:
        return True
    try:
        return bool(values.get("checksum") == digest(rest, 64))
    except (ValueError, RecursionError):  # text or depth that no file of ours could hold
        return False


def check_format(version: object, place: str) -> None:
    """Refuses what a newer version has written, or none.

    Args:
        version: What the file says.
        place: How to call it in a message.

    Raises:
        InputError: If this version cannot read it.
    """
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InputError(f"{place} must have a format from 1 to {FORMAT_VERSION}, got {version!r}")
    if version > FORMAT_VERSION:
        raise InputError(
            f"{place} must have a format from 1 to {FORMAT_VERSION}, got {version}: a newer "
            "cl-adapters has written it; update this one"
        )


def read_file(path: Path) -> bytes | None:
    """Returns what a file holds, None if there is none.

    Raises:
        InputError: If it cannot be read, or is no file, such as a pipe, which would be waited for.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} must be a file, got a folder or a device")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} must be readable, got: {error}") from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that replaces it if the block ends well.

    A Ctrl-C that comes meanwhile counts when the file is written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with delayed_ctrl_c():
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def delayed_ctrl_c() -> Iterator[None]:
    """Lets a Ctrl-C that comes inside the block count at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread has handlers
        return
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            signal.raise_signal(signal.SIGINT)


def _sync_folder(folder: Path) -> None:
    # A rename is only durable once the folder that holds the name is on disk. Some disks, such as
    # network shares, cannot flush a folder: nothing is lost there that could be kept.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
            raise
    finally:
        os.close(handle)
