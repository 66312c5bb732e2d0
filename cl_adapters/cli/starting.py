"""What a command does before it does anything: it loads what is heavy, and says so."""

import sys
from contextlib import AbstractContextManager

import typer

from cl_adapters.loading import loading

__all__ = ["loading", "loading_methods"]


def loading_methods(*, quiet: bool) -> AbstractContextManager[None]:
    """Around the imports of a command that trains: says what takes seconds, once."""
    if not quiet and "torch" not in sys.modules:
        typer.echo("loading PyTorch, Avalanche and the methods", err=True)
    return loading()
