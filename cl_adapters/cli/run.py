"""`cl-adapters run`: one strategy or several on one stream."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cl_adapters.benchmarks.running.recipe_groups import Group
from cl_adapters.cli.recipe_options import COMMAND_KEYS, takes_recipe_keys
from cl_adapters.cli.shared_options import (
    Cache,
    CacheGigabytes,
    CheckpointMinutes,
    Memo,
    MemoGigabytes,
    Quiet,
    RunsFolder,
    names_in,
    under_todays_name,
)
from cl_adapters.cli.starting import loading_methods

__all__ = ["run"]

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Option of the method: key=value or strategy.key=value.",
        rich_help_panel=Group.WHAT,
    ),
]


@takes_recipe_keys(COMMAND_KEYS)
def run(
    given: Mapping[str, Any],
    *,
    seeds: Annotated[
        int,
        typer.Option(
            help="How many seeds, from --seed or the protocol's first on.",
            min=1,
            max=10_000,
            rich_help_panel=Group.WHAT,
        ),
    ] = 1,
    settings: Settings = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="TOML file with any of these options.", rich_help_panel=Group.WHAT),
    ] = None,
    out: RunsFolder = Path("runs"),
    restart: Annotated[
        bool,
        typer.Option(
            "--restart/--resume", help="Begin again, or continue.", rich_help_panel=Group.OUTPUT
        ),
    ] = False,
    cache: Cache = None,
    cache_gigabytes: CacheGigabytes = 4.0,
    memo: Memo = None,
    memo_gigabytes: MemoGigabytes = None,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    logger: Annotated[
        str | None,
        typer.Option(
            help="Curves into each run directory: tensorboard,wandb", rich_help_panel=Group.OUTPUT
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Runs strategies on a stream."""
    with loading_methods(quiet=quiet):
        from cl_adapters.benchmarks.running.batch import expand, run_batch
        from cl_adapters.cache.feature_cache import open_cache
        from cl_adapters.cli.printing import print_ending

    cache = under_todays_name("cache", cache, "memo", memo)
    gigabytes = under_todays_name(
        "cache-gigabytes", cache_gigabytes, "memo-gigabytes", memo_gigabytes
    )
    configs = expand(given, recipe=recipe, seeds=seeds, settings=settings or [])
    folders = run_batch(
        configs,
        out,
        restart=restart,
        quiet=quiet,
        cache=open_cache(cache, gigabytes=gigabytes),
        checkpoint_minutes=checkpoint_minutes,
        loggers=names_in(logger),
    )
    if not quiet:
        print_ending(folders, out)
