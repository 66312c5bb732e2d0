"""From what a user wrote to a path, and to the text of a file: the one place that does it."""

import os
from pathlib import Path
from typing import Final

from cl_adapters.errors import InputError

__all__ = ["read_text", "user_path"]

_LONGEST: Final = 2**24  # bytes of a file of settings; a device such as /dev/zero never ends


def read_text(path: Path) -> str:
    """Returns the text of a user's file of settings, which may be a pipe, as of a shell's `<(...)`.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is longer than any such file, or no UTF-8.
    """
    with path.open("rb") as file:
        data = file.read(_LONGEST + 1)
    if len(data) > _LONGEST:
        raise ValueError(f"more than {_LONGEST:,} bytes")
    return data.decode("utf-8")


def user_path(text: str | os.PathLike[str]) -> Path:
    """Returns the path that a user means, wherever it stood: an option, a recipe, a variable.

    A `~` at its start is the home folder, which a shell puts in place only where it sees one: not
    in `--out=~/runs` nor in a file. Everything else is taken as it is; a colon is part of a name.

    Args:
        text: A path, relative to the working folder if it is not absolute.

    Raises:
        InputError: If no path can be so, or the home folder of somebody unknown is meant.

    Example:
        >>> str(user_path("exp1:lr0.1")), user_path("~/runs") == Path.home() / "runs"
        ('exp1:lr0.1', True)
    """
    path = Path(text)
    if "\0" in str(path):
        raise InputError(f"path must be one that the system can have, got {str(path)!r}")
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise InputError(
            f"path must begin with a home folder that exists, got {str(path)!r}"
        ) from error
