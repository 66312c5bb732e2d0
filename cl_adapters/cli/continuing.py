"""`cl-adapters continue`: further images on top of what a run has learned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cl_adapters.benchmarks.running.recipe_groups import Group
from cl_adapters.cli.recipe_options import takes_recipe_keys
from cl_adapters.cli.shared_options import (
    Cache,
    CacheGigabytes,
    CheckpointMinutes,
    Quiet,
    RunsFolder,
)
from cl_adapters.cli.starting import loading_methods

__all__ = ["continue_run"]

_READING = (
    "class_depth", "domain_folders", "image_column", "label_column", "max_megapixels", "test_set",
)  # fmt: skip


@takes_recipe_keys(_READING)
def continue_run(
    given: Mapping[str, Any],
    *,
    run: Annotated[
        Path,
        typer.Argument(help="Directory of a finished run, or a folder with that one run in it."),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="Image folder, parquet or csv file with what is to be learned: new classes, or "
            "more images of old ones.",
            rich_help_panel=Group.DATA,
        ),
    ],
    increment: Annotated[
        int | None,
        typer.Option(
            help="New classes an experience (default: all at once).",
            min=1,
            rich_help_panel=Group.STREAM,
        ),
    ] = None,
    old_test: Annotated[
        str | None,
        typer.Option(
            help="Class folders with test images of what was learned before, or none; by default "
            "those that the run was evaluated on.",
            rich_help_panel=Group.DATA,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="File of the frozen backbone, if it is no longer where the run had it.",
            rich_help_panel=Group.PIXELS,
        ),
    ] = None,
    out: RunsFolder = Path("runs"),
    restart: Annotated[
        bool,
        typer.Option(
            "--restart/--resume",
            help="Begin again where the run ended, or continue.",
            rich_help_panel=Group.OUTPUT,
        ),
    ] = False,
    cache: Cache = None,
    cache_gigabytes: CacheGigabytes = 4.0,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    quiet: Quiet = False,
) -> None:
    """Learns further images on top of what a run has learned."""
    with loading_methods(quiet=quiet):
        from cl_adapters.benchmarks.running.batch import run_batch
        from cl_adapters.benchmarks.running.continuing import to_go_on
        from cl_adapters.cache.feature_cache import open_cache
        from cl_adapters.cli.printing import print_ending

    part = {**given, "increment": increment, "old_test": old_test}
    parent, config, notes = to_go_on(run, data, part, out=out, weights=weights, restart=restart)
    folders = run_batch(
        [config],
        out,
        parent=parent,
        notes=notes,
        restart=restart,
        quiet=quiet,
        cache=open_cache(cache, gigabytes=cache_gigabytes),
        checkpoint_minutes=checkpoint_minutes,
    )
    if not quiet:
        print_ending(folders, out)
