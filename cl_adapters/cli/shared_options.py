"""Options that several commands have."""

import warnings
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from cl_adapters.benchmarks.running.recipe_groups import Group
from cl_adapters.errors import EarlierNameWarning

__all__ = [
    "Cache",
    "CacheGigabytes",
    "CheckpointMinutes",
    "DryRun",
    "Memo",
    "MemoGigabytes",
    "Quiet",
    "Runs",
    "RunsFolder",
    "names_in",
    "under_todays_name",
]

T = TypeVar("T")

RunsFolder = Annotated[Path, typer.Option(help="Folder of all runs.", rich_help_panel=Group.OUTPUT)]
Runs = Annotated[list[Path], typer.Argument(help="Run directories or folders of them.")]
Cache = Annotated[
    str | None,
    typer.Option(
        help="Folder for what frozen parts compute, or 'off'; your cache by default.",
        rich_help_panel=Group.COMPUTING,
    ),
]
CacheGigabytes = Annotated[
    float, typer.Option(help="Most that it takes on disk.", rich_help_panel=Group.COMPUTING)
]
CheckpointMinutes = Annotated[
    float,
    typer.Option(
        help="Between two checkpoints inside an experience; 0: each step.",
        min=0,
        rich_help_panel=Group.COMPUTING,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Only say what would be done.", rich_help_panel=Group.WHAT),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Print only errors.", rich_help_panel=Group.OUTPUT)
]
# What --cache and --cache-gigabytes were called.
Memo = Annotated[str | None, typer.Option(hidden=True)]
MemoGigabytes = Annotated[float | None, typer.Option(hidden=True)]


def under_todays_name(name: str, value: T, earlier: str, given: T | None) -> T:
    """Returns an option's value, taken from its earlier name where that was used."""
    if given is None:
        return value
    warnings.warn(f"option --{earlier} is now called --{name}", EarlierNameWarning, stacklevel=2)
    return given


def names_in(text: str | None) -> list[str]:
    """Returns the names in a text that separates them by commas."""
    return [each.strip() for each in (text or "").split(",") if each.strip()]
