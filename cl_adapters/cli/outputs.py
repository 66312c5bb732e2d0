"""What a command says, to a terminal, a pipe or a file: a reader that left, a disk that is full.

Who reads may leave before all is said, as in `cl-adapters list runs | head -1`. Then a command ends
without a word and with the exit code of a tool that a closed pipe ended. A command that is at work
tells how far it is on stderr; where nobody takes that, it goes on.
"""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TextIO, cast

__all__ = ["CLOSED", "OutputError", "watched_outputs"]

CLOSED: Final = 141  # what shells say of a tool that SIGPIPE ended


class OutputError(Exception):
    """Raised where stdout does not take what is said.

    Attributes:
        is_closed: Whether its reader has left; else the sentence says what is wrong.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"stdout must take what is said, got: {error.strerror or error}")
        self.is_closed = error.errno == errno.EPIPE


class _Watched:
    """A stream whose failures are known as its own; all else is the stream's."""

    def __init__(self, stream: TextIO, *, is_needed: bool) -> None:
        self._stream, self._is_needed, self._has_failed = stream, is_needed, False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the stream's
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text, or drops it where nobody takes it."""
        if text != "":  # which is how one asks what kind of stream this is
            self._do(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Hands over what was written."""
        self._do(self._stream.flush)

    def _do(self, what: Callable[[], object]) -> None:
        try:
            what()
        except OSError as error:
            self._has_failed = True
            if self._is_needed:
                raise OutputError(error) from error

    def end(self) -> None:
        """Drops what could not be written: Python would try again at its end, and complain."""
        if self._has_failed:
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextmanager
def watched_outputs() -> Iterator[None]:
    """Lets writing to stdout raise `OutputError` where it fails, and to stderr be dropped.

    A stream that was closed before the command began takes all and keeps nothing.
    """
    before = sys.stdout, sys.stderr
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        out = _Watched(sys.stdout or nowhere, is_needed=True)
        err = _Watched(sys.stderr or nowhere, is_needed=False)
        sys.stdout, sys.stderr = cast("TextIO", out), cast("TextIO", err)
        try:
            yield
        finally:
            out.end()
            err.end()
            sys.stdout, sys.stderr = before
