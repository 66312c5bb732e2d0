"""What a command says before it knows anything."""

import sys

import typer

__all__ = ["say_loading"]


def say_loading(*, quiet: bool) -> None:
    """Says what the first seconds of a run go into, unless that is loaded already."""
    if not quiet and "torch" not in sys.modules:
        typer.echo("loading PyTorch, Avalanche and the methods", err=True)
