"""What a report makes for a paper: a table of few columns, and figures as wide as a column."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cl_adapters.errors import InputError, unknown_name
from cl_adapters.reports.definitions import COLUMNS

__all__ = ["COLUMN_INCHES", "PAPER_COLUMNS", "STYLES", "Paper", "paper_columns"]

PAPER_COLUMNS: Final = ("a_last_micro", "a_avg_micro", "forgetting_from_best")
STYLES: Final = ("page", "paper")
COLUMN_INCHES: Final = 3.25  # a column of NeurIPS' and ICML's, CVPR's and IEEE's papers, nearly
_LEAST, _MOST = 1.5, 20.0
# What the main columns are called for short.
_SHORT_NAMES: Final = {
    "a_last": "a_last_micro",
    "a_avg": "a_avg_micro",
    "forgetting": "forgetting_from_best",
    "parameters": "added_parameters",
}


@dataclass(frozen=True, kw_only=True)
class Paper:
    """What is made for a paper.

    Attributes:
        columns: Names of the table's columns, of `definitions.COLUMNS`, as they follow each other.
        column_width: How many inches wide a figure is, from 1.5 to 20; None draws none.

    Raises:
        InputError: If a width is outside of that.
    """

    columns: tuple[str, ...] = PAPER_COLUMNS
    column_width: float | None = None

    def __post_init__(self) -> None:
        """Checks the width."""
        if self.column_width is not None and not _LEAST <= self.column_width <= _MOST:
            raise InputError(
                f"`column_width` must be from {_LEAST:g} to {_MOST:g} inches, got "
                f"{self.column_width:g}"
            )


def paper_columns(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the full names of columns that a user named.

    Args:
        names: As in CSV files, or `a_last`, `a_avg`, `forgetting` and `parameters` for short.

    Raises:
        InputError: If a name is unknown or stands twice, or there is none.

    Example:
        >>> paper_columns(["a_last", "ece"])
        ('a_last_micro', 'ece')
    """
    known = [column.name for column in COLUMNS]
    chosen: list[str] = []
    for given in names:
        name = _SHORT_NAMES.get(given, given)
        if name not in known:
            raise unknown_name("column", given, known, _SHORT_NAMES)
        if name in chosen:
            raise InputError(f"`columns` must name each column once, got {name!r} twice")
        chosen.append(name)
    if not chosen:
        raise InputError("`columns` must name at least one column, got none")
    return tuple(chosen)
