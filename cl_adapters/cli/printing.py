"""Tables on the terminal."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cl_adapters.errors import printable

__all__ = ["print_ending", "print_table"]


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows below a header, the first, in the width of the terminal where there is one."""
    # As text: a name such as [red] is no markup, and what a terminal obeys is only shown.
    header, *body = [[Text(printable(cell)) for cell in row] for row in rows]
    # Piped output has no terminal whose width could cut the columns, unless somebody names one.
    is_known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    console = Console(file=sys.stdout, width=None if is_known else 200)
    table = Table(box=None, pad_edge=False)
    for name, width in zip(header, _widths([header, *body], console.width), strict=True):
        table.add_column(name, width=width, overflow="fold")
    for row in body:
        table.add_row(*row)
    console.print(table)


_GAP: Final = 2  # between two columns
_FOLDED: Final = 6  # narrower than this no column gets before the others


def _widths(rows: Sequence[Sequence[Text]], room: int) -> list[int]:
    """Returns a width for each column, so that the table fits and words stay whole if they can.

    The widest column gives first, down to its longest word; where that is not enough, words are
    folded: those of the header first, those of the first column, which names the row, last.
    """
    columns = [[row[place] for row in rows if place < len(row)] for place in range(len(rows[0]))]
    widths = [
        max(cell_len(line.plain) for each in column for line in each.split()) for column in columns
    ]
    words = [_longest_word(column) for column in columns]
    bodies = [max(_longest_word(column[1:]), _FOLDED) for column in columns]
    folded = [bodies[0], *[_FOLDED] * (len(words) - 1)]
    for least in (words, bodies, folded, [1] * len(words)):
        while sum(widths) + _GAP * (len(widths) - 1) > room:
            givers = [place for place, width in enumerate(widths) if width > least[place]]
            if not givers:
                break
            widths[max(givers, key=widths.__getitem__)] -= 1
    return widths


def _longest_word(column: Sequence[Text]) -> int:
    return max((cell_len(word) for each in column for word in each.plain.split()), default=1)


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
