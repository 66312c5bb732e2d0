"""How far a command is, for one that goes through many images: a bar, or a line now and then."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import typer
from rich.console import Console
from rich.progress import Progress

__all__ = ["counted"]

_PAUSE: Final = 8.0  # seconds between two lines


class Count(Protocol):
    """What is called after each image."""

    def __call__(self, of: int | None = None, /) -> None:
        """Counts an image; `of` is the number of all."""


@contextmanager
def counted(doing: str, total: int | None = None, *, quiet: bool = False) -> Iterator[Count]:
    """Yields what is called after each image, with the number of all where it became known.

    Args:
        doing: What is done, such as `answering`.
        total: The number of all images, where it is known.
        quiet: Show nothing.
    """
    console = Console(stderr=True)
    is_seen = console.is_terminal and not quiet
    state = {"done": 0, "total": total}
    since = time.monotonic()
    with Progress(console=console, transient=True, disable=not is_seen) as bar:
        task = bar.add_task(doing, total=total)

        def count(of: int | None = None) -> None:
            nonlocal since
            state["done"] = (state["done"] or 0) + 1
            state["total"] = of or state["total"]
            if is_seen:
                bar.update(task, total=state["total"], advance=1)
            elif not quiet and time.monotonic() - since > _PAUSE:
                since = time.monotonic()
                whole = f" of {state['total']:,}" if state["total"] else ""
                typer.echo(f"{doing}: {state['done']:,}{whole} images", err=True)

        yield count
