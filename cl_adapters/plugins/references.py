"""Names of the form `file.py:Name` and `package.module:Name`, and what they lead to."""

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from cl_adapters.errors import InputError, text_of
from cl_adapters.paths import user_path

__all__ = [
    "SUFFIX",
    "check_call",
    "file_digest",
    "file_of",
    "forget_plugins",
    "in_words",
    "is_reference",
    "label",
    "load_module",
    "note_plugin",
    "place_beside_plugin",
    "place_in_plugin",
]

SUFFIX: Final = ".py"

# That were asked for by a name from outside, in order. The first is as the user has it.
_FILES: Final[dict[str, None]] = {}


def is_reference(text: str) -> bool:
    """Says whether a name has the form `file.py:Name` or `package.module:Name`.

    Example:
        >>> [is_reference(each) for each in ("my/own.py:Mine", "lae", "photos: 2024", "a:b c")]
        [True, False, False, False]
    """
    where, _, name = text.rpartition(":")
    return where != "" and name.isidentifier()


def label(name: str) -> str:
    """Returns a name as it stands in directories and reports: letters, digits, `-`, `_` and `.`.

    Example:
        >>> label("../ideas/my_method.py:MyMethod"), label("package.module:Name"), label("lae")
        ('my_method.MyMethod', 'module.Name', 'lae')
    """
    if is_reference(name):
        where, _, name_inside = name.rpartition(":")
        stem = Path(where).stem if where.endswith(SUFFIX) else where.rpartition(".")[2]
        name = f"{stem}.{name_inside}"
    return re.sub(r"[^\w.-]", "_", name).strip(".") or "plugin"


def check_call(value: object, **keywords: object) -> None:
    """Refuses what cannot be called with some keyword arguments; calls nothing.

    Raises:
        InputError: With the rule alone, as a registry's `accept` does.
    """
    given = ", ".join(keywords) or "no arguments"
    if not callable(value):
        raise InputError(f"must be a function of {given}, got {value!r}")
    try:
        inspect.signature(value).bind(**keywords)
    except (TypeError, ValueError) as error:
        raise InputError(f"must be a function of {given}, got {value!r}: {error}") from error


def load_module(where: str) -> ModuleType:
    """Imports the module, or the file, in front of a reference's colon.

    Raises:
        InputError: If the file is no Python source; whatever the module raises goes on.
    """
    if not where.endswith(SUFFIX):
        module = importlib.import_module(where)
        note_plugin(getattr(module, "__file__", None))
        return module
    path = user_path(where)
    note_plugin(path)
    # A changed file is another module: what the old one gave out stays as it was.
    content = f"{path.resolve()} {file_digest(path)}"
    name = f"{path.stem}_{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise InputError(f"plugin file {where!r} must be Python source, got another file")
        # Registered before it runs, as an import does: pickle and pydantic look modules up there.
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def file_of(value: object) -> Path | None:
    """Returns the file in which an object stands, seen from here if it is below; None if none."""
    try:
        found = inspect.getsourcefile(value)  # type: ignore[arg-type] # refuses what it cannot take
    except (TypeError, OSError):
        return None
    if found is None or not Path(found).is_file():
        return None
    path, here = Path(found).resolve(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def note_plugin(file: str | Path | None) -> None:
    """Notes that a file is a plugin's, so that what goes wrong in it is told as its own."""
    if file is not None:
        _FILES.update({str(file): None, str(Path(file).absolute()): None})


def forget_plugins() -> None:
    """Forgets which plugins were asked for, as a command begins."""
    _FILES.clear()


def place_beside_plugin(error: BaseException) -> str:
    """Returns where an error arose while plugins are at work; empty if there are none.

    What a plugin gave back may be met only later, where none of its own code stands.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not _FILES or not frames:
        return ""
    place = "/".join(Path(frames[-1].filename).parts[-3:])
    names = ", ".join(dict.fromkeys(Path(each).name for each in _FILES))
    return f"{place}, line {frames[-1].lineno}, with what {names} gave"


def place_in_plugin(error: BaseException) -> str:
    """Returns file and line where a plugin's code last stood before an error; empty if nowhere."""
    found = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename in _FILES:
            found = f"{frame.filename}, line {frame.lineno}"
    return found


def in_words(error: BaseException) -> str:
    """Returns an exception's kind, first line and place, if it is a plugin's, in one line."""
    lines = text_of(error).strip().splitlines()
    where: Any = getattr(error, "lineno", None)
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    place = place_in_plugin(error)
    if place:
        return f"{text} ({place})"
    return f"{text} (line {where})" if where and "line" not in text else text


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"plugin file {str(path)!r} must be readable, got: {error}") from error
