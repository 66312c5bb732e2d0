"""Tables on the terminal."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cl_adapters.errors import printable

__all__ = ["print_ending", "print_table"]


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows below a header, the first."""
    header, *body = rows
    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(Text(name))
    for row in body:
        # As text: a name such as [red] is no markup, and what a terminal obeys is only shown.
        table.add_row(*(Text(printable(cell)) for cell in row))
    # Piped output has no terminal whose width could cut the columns, unless somebody names one.
    is_known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    Console(file=sys.stdout, width=None if is_known else 200).print(table)


def print_ending(folders: Sequence[Path], out: Path) -> None:
    """Prints what runs found, and the command to go on with.

    Args:
        folders: Their run directories.
        out: Folder of all runs.
    """
    from cl_adapters.reports.ending import ending_of

    ending = ending_of(folders)
    if ending.table:
        print_table(ending.table)
    for sentence in ending.sentences:
        typer.echo(sentence)
    parents = sorted({folder.parent.parent for folder in folders})
    where = parents[0] if len(parents) == 1 else out
    typer.echo(f"figures and more: cl-adapters report {where} --out report")
