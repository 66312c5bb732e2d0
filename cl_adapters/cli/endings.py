"""How a command ends: what the user can mend is one sentence and an exit code, no traceback."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.util import find_spec
from typing import Any, Final

import typer

from cl_adapters.errors import EarlierNameWarning, InputError, RunError
from cl_adapters.plugins.references import in_words, place_in_plugin

__all__ = ["BAD_INPUT", "FAILED", "guarded", "need"]

FAILED: Final = 1
BAD_INPUT: Final = 2


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Returns a command that ends in one sentence, and around which libraries are quiet."""

    @wraps(command)
    def ends_well(*arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 - the command's own
        logging.basicConfig(level=logging.WARNING)
        _quieten_libraries()
        with _one_sentence(), _earlier_names_in_one_sentence():
            command(*arguments, **keywords)

    return ends_well


def need(module: str, extra: str) -> None:
    """Raises `InputError` where a module is missing that an extra of the package brings."""
    if find_spec(module) is None:
        raise InputError(f"`{extra}` needs {module}: pip install 'cl-adapters[{extra}]'")


@contextmanager
def _one_sentence() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        typer.echo(f"cl-adapters: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from error
    except (RunError, OSError) as error:
        typer.echo(
            f"cl-adapters: {error}; what was finished is kept, the same command continues", err=True
        )
        raise typer.Exit(FAILED) from error
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if not place_in_plugin(error):  # a fault of ours, of which all is told
            raise
        typer.echo(f"cl-adapters: a plugin must run through, got {in_words(error)}", err=True)
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt as error:
        typer.echo(
            "cl-adapters: stopped; the same command continues from the last checkpoint", err=True
        )
        raise typer.Exit(FAILED) from error


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
