"""`cl-adapters list`: what exists by name."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["list_names"]


def list_names(
    what: Annotated[
        str,
        typer.Argument(
            help="strategies, streams, protocols, backbones, peft, heads, routers, detectors, "
            "policies, pieces (the last five in one) or runs; other words for them, such as "
            "adapters, do too."
        ),
    ] = "strategies",
    out: Annotated[Path, typer.Option(help="Folder of all runs, for `list runs`.")] = Path("runs"),
    like: Annotated[
        str | None,
        typer.Option(help="A strategy: list those that share pieces with it, such as prototypes."),
    ] = None,
) -> None:
    """Lists names."""
    from cl_adapters.benchmarks.listing import list_table
    from cl_adapters.cli.printing import print_table

    print_table(list_table(what, out, like))
