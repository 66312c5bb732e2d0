"""Loading what is heavy, and leaving it, without looking through it for garbage.

Half a million objects are imported and stay. Python would look through them again and again while
they come, and take them apart one by one at the end: a third of what a short command takes.
"""

import atexit
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cl_adapters.plugins.tables import load

__all__ = ["call_loaded", "loading", "whole_process"]


@contextmanager
def loading() -> Iterator[None]:
    """Around imports: no garbage is looked for inside.

    Example:
        >>> with loading():
        ...     gc.isenabled()
        False
    """
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_on:
            gc.enable()


@contextmanager
def whole_process() -> Iterator[None]:
    """Around all that a process is for: when the process ends, nothing is taken apart first.

    Its exit code is that of the `SystemExit` that comes out, or 0. Threads are waited for, and what
    is registered for the end is called. Any other error ends the process as always.
    """
    code: list[int] = []
    atexit.register(_leave, code)  # the first to be registered is the last to be called
    try:
        yield
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            code.append(end.code or 0)
        raise
    code.append(0)


def _leave(code: Sequence[int]) -> None:
    if not code:
        return
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # Python knows how to end then
            return
    os._exit(code[0])


def call_loaded(place: str, *arguments: object) -> None:
    """Loads a function, `module:function`, and calls it: how a worker of our own begins."""
    atexit.register(_leave, [0])
    with loading():
        function = load(place)
    function(*arguments)
