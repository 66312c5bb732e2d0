"""Tables on the terminal."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["harmless", "print_table"]


def harmless(text: str) -> str:
    r"""Returns text in which what no terminal should obey is spelled out.

    Example:
        >>> harmless("a\x1b[31m")
        'a\\x1b[31m'
    """
    shown = (
        letter
        if letter.isprintable() or letter == "\n"
        else letter.encode("unicode_escape", "surrogatepass").decode("ascii")
        for letter in text
    )
    return "".join(shown)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows below a header, the first."""
    header, *body = rows
    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(Text(harmless(name)))
    for row in body:  # as text: a name such as [red] is no markup
        table.add_row(*(Text(harmless(cell)) for cell in row))
    # Piped output has no terminal whose width could cut the columns.
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200).print(table)
