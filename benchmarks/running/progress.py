"""What a caller is told of a run: bars on a terminal, and Ctrl-C that is never lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from cl_adapters.errors import printable

__all__ = ["Bars", "Progress", "StopRun", "Stopped", "ctrl_c_is_heard", "say"]


def say(console: Console, text: str) -> None:
    """Prints a line as it is: names and errors are no markup, and no terminal obeys them."""
    console.print(printable(text), highlight=False, markup=False, soft_wrap=True)


class StopRun(Exception):  # noqa: N818 - no error
    """Raised by who watches a run and has seen enough; its text goes into the record."""


class Progress:
    """What a caller may show; this one shows nothing."""

    def start(self, title: str, total: int) -> None:
        """A run begins; `total` counts the images of all its passes."""

    def advance(self, text: str, images: int) -> None:
        """Images were dealt with; `text` says what is going on."""

    def note(self, text: str) -> None:
        """Something happens that the user may not expect."""

    def learned(self, experience: int, of: int, accuracy: float, name: str = "") -> None:
        """An experience, one `of` so many, is learned; that share of the test images is right.

        `name` is what the experience is called, or the classes that it brought; it may be empty.
        """

    def stored(self, folder: Path, experience: int) -> None:
        """An experience has been trained, evaluated and stored; a `StopRun` ends the run here."""


class Stopped(Protocol):
    """Whether Ctrl-C was pressed, here or in a process above."""

    def is_set(self) -> bool:
        """Says so."""


class Bars(Progress):
    """Progress bars on a terminal; elsewhere one line for each experience and finished run."""

    def __init__(self, console: Console, stopped: Stopped) -> None:
        self._console = console
        self._stopped = stopped
        self._shown = console.is_terminal and not console.quiet
        self._bars = RichProgress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("images,"),
            TimeElapsedColumn(),
            TextColumn("passed,"),
            TimeRemainingColumn(),
            TextColumn("left{task.fields[so_far]}"),
            TextColumn("{task.fields[doing]}", markup=False),
            console=console,
            disable=not self._shown,
            transient=True,
        )
        self._task = self._bars.add_task("", total=None, doing="", so_far="")
        self._title = ""

    def __enter__(self) -> "Bars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def start(self, title: str, total: int) -> None:
        """Begins a bar over all images of a run's passes."""
        self._title = title
        self._bars.reset(self._task, description=title, total=total, doing="", so_far="")

    def advance(self, text: str, images: int) -> None:
        """Moves the bar.

        Raises:
            KeyboardInterrupt: If Ctrl-C was pressed and has not ended the run yet.
        """
        if self._stopped.is_set():
            raise KeyboardInterrupt
        self._bars.update(self._task, advance=images, doing=text)

    def learned(self, experience: int, of: int, accuracy: float, name: str = "") -> None:
        """Shows the accuracy so far."""
        self._bars.update(self._task, so_far=f", {accuracy:.1%} right so far")
        if not self._shown:
            named = f" ({name})" if name else ""
            where = f"{self._title}: experience {experience + 1} of {of}{named}"
            self.finish(f"{where}, {accuracy:.1%} right so far")

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        say(self._console, f"note: {text}")

    def finish(self, line: str) -> None:
        """Says that a run has ended."""
        say(self._console, line)


@contextmanager
def ctrl_c_is_heard() -> Iterator[threading.Event]:
    """Yields an event that is set by Ctrl-C, which also raises `KeyboardInterrupt` as always."""
    # Python drops a KeyboardInterrupt that is raised while it cleans up an object; the event stays.
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped  # only the main thread may set a handler
        return

    def note_and_raise(*_: object) -> None:
        stopped.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note_and_raise)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
