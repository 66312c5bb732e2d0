"""What a command does before it does anything: it loads what is heavy, and says so."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import typer

from cl_adapters.loading import loading

__all__ = ["loading", "loading_figures", "loading_methods"]


@contextmanager
def loading_methods(*, quiet: bool) -> Iterator[None]:
    """Around the imports of a command that trains: says what takes seconds, once."""
    with loading():
        if not quiet and "torch" not in sys.modules:
            typer.echo("loading PyTorch", err=True)
            import_module("torch")
            typer.echo("loading Avalanche and the methods", err=True)
        yield


@contextmanager
def loading_figures() -> Iterator[None]:
    """Around the imports of a command that draws: says what takes seconds, once."""
    with loading():
        if "matplotlib.figure" not in sys.modules:
            typer.echo("loading Matplotlib", err=True)
        yield
