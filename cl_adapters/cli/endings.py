"""How a command ends: what the user can mend is one sentence and an exit code, no traceback."""

import errno
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import typer

from cl_adapters.cli.outputs import CLOSED, OutputError, watched_outputs
from cl_adapters.errors import (
    OUT_OF_MEMORY,
    EarlierNameWarning,
    InputError,
    RunError,
    is_out_of_memory,
    printable,
)
from cl_adapters.paths import user_path
from cl_adapters.plugins.references import (
    forget_plugins,
    in_words,
    place_beside_plugin,
    place_in_plugin,
)

__all__ = ["BAD_INPUT", "FAILED", "call_whole", "guarded", "need", "printable", "refused"]

FAILED: Final = 1
BAD_INPUT: Final = 2


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Returns a command that ends in one sentence, and around which libraries are quiet."""

    @wraps(command)
    def ends_well(*arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 - the command's own
        logging.basicConfig(level=logging.WARNING)
        _quieten_libraries()
        forget_plugins()
        with _one_sentence(is_continued=_is_continued(command)), _earlier_names_in_one_sentence():
            given = {name: _with_user_paths(value) for name, value in keywords.items()}
            command(*arguments, **given)

    return ends_well


def call_whole(app: Callable[[], None]) -> None:
    """Calls the whole command; whatever it says, help too, may meet a closed pipe or a full disk.

    Raises:
        SystemExit: With its exit code.
    """
    with watched_outputs():
        try:
            app()
        except OutputError as error:
            if error.is_closed:
                raise SystemExit(CLOSED) from error
            _say(str(error))
            raise SystemExit(FAILED) from error


def _with_user_paths(value: Any) -> Any:  # noqa: ANN401 - an option's
    if isinstance(value, list):
        return [_with_user_paths(each) for each in value]
    return user_path(value) if isinstance(value, Path) else value


def need(module: str, extra: str) -> None:
    """Raises `InputError` where a module is missing that an extra of the package brings."""
    if find_spec(module) is None:
        raise InputError(f"`{extra}` needs {module}: pip install 'cl-adapters[{extra}]'")


def refused(sentence: str) -> typer.Exit:
    """Says what is wrong with an input; returns the exit that ends the command."""
    _say(sentence)
    return typer.Exit(BAD_INPUT)


def _is_continued(command: Callable[..., None]) -> bool:
    return command.__name__ in {"run", "sweep", "tune", "continue_run"}


# Of a path that no disk will ever take: to do the same again is no way out.
_BAD_PATH: Final = frozenset({errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})
_STOPPED: Final = "stopped; the same command continues from the last checkpoint"
_KEPT: Final = "; what was finished is kept, the same command continues"


@contextmanager
def _interruptions() -> Iterator[None]:
    # Ctrl-C in a serializer of ours comes out of pydantic as an error of its own, in words alone.
    try:
        yield
    except Exception as error:
        is_one = type(error).__name__ == "PydanticSerializationError"
        if is_one and "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from error
        raise


@contextmanager
def _one_sentence(*, is_continued: bool) -> Iterator[None]:
    try:
        with _interruptions():
            yield
    except KeyboardInterrupt as error:
        _say(_STOPPED if is_continued else "stopped")
        raise typer.Exit(FAILED) from error
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        sentence, code = _ending(error)
        if not sentence and code == FAILED:
            raise
        if sentence:
            _say(sentence + _KEPT if is_continued and code == FAILED else sentence)
        raise typer.Exit(code) from error
    except BaseException as error:  # `sys.exit(0)` in a plugin would look like a good end
        if not place_in_plugin(error):
            raise
        _say(_plugin_ended(error))
        raise typer.Exit(FAILED) from error


def _ending(error: Exception) -> tuple[str, int]:
    """Returns the sentence and the exit code of an error.

    There is no sentence for one that is ours, nor for a reader that has left.
    """
    sentence, code = "", FAILED
    if isinstance(error, InputError):
        sentence, code = str(error), BAD_INPUT
    elif isinstance(error, UnicodeEncodeError):  # bytes that are no text: no record holds them
        name = error.object[max(error.start - 30, 0) : error.end + 30]
        sentence, code = f"names must be text in UTF-8, got {name!a}", BAD_INPUT
    elif isinstance(error, OSError) and error.errno in _BAD_PATH:
        sentence, code = f"path must be one that the disk can have, got: {error}", BAD_INPUT
    elif isinstance(error, OutputError) and error.is_closed:
        code = CLOSED
    elif isinstance(error, OSError | RunError | OutputError):
        sentence = _with_its_file(error)
    elif is_out_of_memory(error):
        sentence = OUT_OF_MEMORY
    elif place_in_plugin(error) or place_beside_plugin(error):
        # Any other is a fault of ours, of which all is told.
        sentence = _plugin_ended(error)
    return sentence, code


def _with_its_file(error: Exception) -> str:
    """Returns what is wrong, of what the system said with the file where it named one."""
    if not isinstance(error, OSError):
        return str(error)
    # A file may also be known by its number alone.
    if not isinstance(error.filename, str | bytes | os.PathLike) or not error.strerror:
        return f"the system must do what is asked of it, got: {error.strerror or error}"
    name = os.fsdecode(error.filename)
    return f"{name!r} must be a path that can be read and written, got: {error.strerror}"


def _plugin_ended(error: BaseException) -> str:
    beside = "" if place_in_plugin(error) else place_beside_plugin(error)
    place = f" ({beside})" if beside else ""
    return f"a plugin must run through, got {in_words(error)}{place}"


def _say(sentence: str) -> None:
    typer.echo(printable(f"cl-adapters: {sentence}"), err=True)


@contextmanager
def _earlier_names_in_one_sentence() -> Iterator[None]:
    before, said = warnings.showwarning, set[str]()

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:  # noqa: ANN401 - as `warnings.showwarning`
        if not issubclass(category, EarlierNameWarning):
            before(message, category, *place, **more)
        elif str(message) not in said:
            said.add(str(message))
            typer.echo(f"cl-adapters: {message}", err=True)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def _quieten_libraries() -> None:
    # Avalanche's dependency warns at import that it found no QP solver, which nothing here uses.
    warnings.filterwarnings("ignore", message="no QP solver found")
    # torch.compile looks at its own graph, and for a GPU toolkit where there is no GPU.
    warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    os.environ.setdefault("PYTHONWARNINGS", "ignore:no QP solver found")  # in a sweep's processes
