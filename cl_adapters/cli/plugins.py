"""`cl-adapters check` and `new`: a strategy, detector, adapter, router or stream of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from cl_adapters.cli.endings import FAILED

__all__ = ["check", "new"]

Kind = Annotated[str, typer.Argument(help="strategy, detector, adapter, router or stream.")]


def check(
    kind: Kind,
    name: Annotated[str, typer.Argument(help="Its name, or file.py:Name.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Option of a strategy: key=value.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Names of checks, separated by commas; else all.")
    ] = None,
) -> None:
    """Tests a plugin."""
    from cl_adapters.benchmarks.conformance import check_plugin

    chosen = None if only is None else [each.strip() for each in only.split(",")]
    broken = 0
    for found in check_plugin(kind, name, settings=settings or [], checks=chosen):
        typer.echo(f"{'BROKEN' if found.sentences else 'ok':<7}{found.name:<14} {found.rule}")
        for sentence in found.sentences:
            typer.echo(f"{'':<22}{sentence}")
        broken += bool(found.sentences)
    if broken:
        typer.echo(f"{name}: {broken} checks found a broken rule")
        raise typer.Exit(FAILED)
    typer.echo(f"{name} is sound")


def new(
    kind: Kind,
    name: Annotated[str, typer.Argument(help="Name of the file to write, such as my_method.")],
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path(),
) -> None:
    """Writes a plugin to start from."""
    from cl_adapters.benchmarks.scaffold import new_files, next_steps

    paths = new_files(kind, name, out)
    typer.echo(f"wrote {' and '.join(map(str, paths))}; next:")
    for line in next_steps(kind, paths[0]):
        typer.echo(f"  {line}")
