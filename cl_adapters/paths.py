"""From what a user wrote to a path: the one place that does it."""

import os
from pathlib import Path

from cl_adapters.errors import InputError

__all__ = ["user_path"]


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
