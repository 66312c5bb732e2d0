"""`cl-adapters tune`: a search over a strategy's options."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cl_adapters.benchmarks.running.recipe_groups import Group
from cl_adapters.cli.endings import need
from cl_adapters.cli.recipe_options import takes_recipe_keys
from cl_adapters.cli.shared_options import Cache, DryRun, Memo, Quiet, RunsFolder, under_todays_name
from cl_adapters.cli.starting import loading_methods

__all__ = ["tune"]

Fixed = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Option that is not searched: key=value.", rich_help_panel=Group.WHAT
    ),
]
Space = Annotated[
    list[str] | None,
    typer.Option(
        help="What to search: lr, lr=0.001:0.1, epochs=1:5:linear, peft=adapter,lora, or a TOML "
        "file of such; by default every option with rules to follow.",
        rich_help_panel=Group.WHAT,
    ),
]


@takes_recipe_keys(
    ("strategy", "stream", "data", "increment", "image_size", "device", "validation"),
    {"validation": " Trials are judged on it; by default 0.2."},
)
def tune(
    given: Mapping[str, Any],
    *,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with any key of a recipe; what `run` takes.", rich_help_panel=Group.WHAT
        ),
    ] = None,
    settings: Fixed = None,
    space: Space = None,
    trials: Annotated[
        int, typer.Option(help="Trials in all.", min=1, rich_help_panel=Group.WHAT)
    ] = 20,
    seeds: Annotated[
        int, typer.Option(help="Runs of each trial.", min=1, max=10_000, rich_help_panel=Group.WHAT)
    ] = 1,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune/--no-prune",
            help="End trials early that fall behind.",
            rich_help_panel=Group.COMPUTING,
        ),
    ] = True,
    best: Annotated[
        Path | None,
        typer.Option(
            help="File for the best recipe, beside the study's own.", rich_help_panel=Group.OUTPUT
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(help="Processes that run trials.", min=1, rich_help_panel=Group.COMPUTING)
    ] = 1,
    threads: Annotated[
        int,
        typer.Option(help="CPU threads of each.", min=1, max=1024, rich_help_panel=Group.COMPUTING),
    ] = 1,
    out: RunsFolder = Path("runs"),
    cache: Cache = None,
    memo: Memo = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Searches a strategy's options."""
    need("optuna", "tune")
    with loading_methods(quiet=quiet):
        from cl_adapters.benchmarks.sweeps.tune_command import (
            Effort,
            make_search,
            run_tune,
            table_of,
        )
        from cl_adapters.cli.printing import print_table

    cache = under_todays_name("cache", cache, "memo", memo)
    search = make_search(
        given,
        recipe=recipe,
        settings=settings or [],
        space=space or [],
        seeds=seeds,
        prune=prune,
        out=out,
    )
    if dry_run:
        print_table(table_of(search))
        typer.echo(f"{trials} trials in {search.folder}")
        return
    effort = Effort(trials=trials, jobs=jobs, threads=threads, cache=cache, quiet=quiet)
    print_table(run_tune(search, effort, best))
