"""What a command that ran something says at its end."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cl_adapters.reports.groups import clean_text, group_runs
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.summary import sentences
from cl_adapters.reports.tables.short import short_rows
from cl_adapters.reports.tested import coverage_sentence

__all__ = ["Ending", "ending_of"]


class Ending(NamedTuple):
    """A table of what finished runs reached, and sentences on who leads and how surely."""

    table: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...]


def ending_of(folders: Sequence[Path]) -> Ending:
    """Returns what the finished ones among run directories found.

    Args:
        folders: Run directories, at least one; what is unfinished or damaged is left out.
    """
    groups = group_runs(load_runs(folders).finished)
    told = [text for group in groups for text in sentences(group)[:1]]
    for row in (row for group in groups for row in group.rows):
        over = coverage_sentence(row.runs[0])
        told += [clean_text(f"{row.label}: {over}")] if over else []
    return Ending(tuple(short_rows(groups)) if groups else (), tuple(told))
