"""`cl-adapters sweep`: a grid of runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cl_adapters.benchmarks.running.recipe_groups import Group
from cl_adapters.cli.endings import FAILED
from cl_adapters.cli.recipe_options import takes_recipe_keys
from cl_adapters.cli.shared_options import (
    Cache,
    CacheGigabytes,
    CheckpointMinutes,
    DryRun,
    Memo,
    MemoGigabytes,
    Quiet,
    RunsFolder,
    under_todays_name,
)
from cl_adapters.cli.starting import loading_methods
from cl_adapters.errors import InputError

if TYPE_CHECKING:
    from cl_adapters.benchmarks.sweeps.sweep_command import Plan

__all__ = ["sweep"]

Engine = Annotated[
    str,
    typer.Option(
        help="local: processes of this machine; ray: a Ray cluster.",
        rich_help_panel=Group.COMPUTING,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Cluster: HOST:PORT, auto or local; by default any that is here.",
        rich_help_panel=Group.COMPUTING,
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        help="Runs at once; by default what cores or cluster have room for.",
        min=1,
        rich_help_panel=Group.COMPUTING,
    ),
]
Retries = Annotated[
    int,
    typer.Option(
        help="More tries of a run that fails for a reason outside it.",
        min=0,
        rich_help_panel=Group.COMPUTING,
    ),
]
Values = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Values of an option: key=1,2,3 or strategy.key=1,2,3.",
        rich_help_panel=Group.WHAT,
    ),
]


@takes_recipe_keys(("strategy", "stream"))
def sweep(
    given: Mapping[str, Any],
    *,
    grid: Annotated[
        Path | None, typer.Argument(help="TOML file: a recipe in which a list is an axis.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe files, separated by commas; each is a stream.", rich_help_panel=Group.WHAT
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="How many seeds.", min=1, max=10_000, rich_help_panel=Group.WHAT),
    ] = None,
    settings: Values = None,
    out: RunsFolder = Path("runs"),
    engine: Engine = "local",
    ray_address: Address = None,
    workers: Count = None,
    threads: Annotated[
        int,
        typer.Option(
            help="CPU threads of each run.", min=1, max=1024, rich_help_panel=Group.COMPUTING
        ),
    ] = 1,
    gpus: Annotated[
        str,
        typer.Option(help="GPUs to hand out, one a worker: 0,1", rich_help_panel=Group.COMPUTING),
    ] = "",
    retries: Retries = 1,
    cache: Cache = None,
    cache_gigabytes: CacheGigabytes = 4.0,
    memo: Memo = None,
    memo_gigabytes: MemoGigabytes = None,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Runs a grid."""
    with loading_methods(quiet=quiet):
        from cl_adapters.benchmarks.sweeps.engines import check_engine
        from cl_adapters.benchmarks.sweeps.retries import Workers
        from cl_adapters.benchmarks.sweeps.sweep import folder_of
        from cl_adapters.benchmarks.sweeps.sweep_command import gpu_indices, run_sweep
        from cl_adapters.cli.printing import print_ending

    check_engine(engine)
    if ray_address is not None and engine != "ray":
        raise InputError(f"--ray-address is for --engine ray, got it with {engine!r}")
    plan = _plan(grid, {**given, "recipe": recipe, "seeds": seeds}, settings or [], out)
    if dry_run:
        _say(plan)
        return
    chosen = Workers(
        count=workers,
        threads=threads,
        gpus=gpu_indices(gpus),
        cache=under_todays_name("cache", cache, "memo", memo),
        cache_gigabytes=under_todays_name(
            "cache-gigabytes", cache_gigabytes, "memo-gigabytes", memo_gigabytes
        ),
        checkpoint_minutes=checkpoint_minutes,
        address=ray_address,
    )
    is_good = run_sweep(plan, chosen, engine=engine, retries=retries, quiet=quiet)
    folders = [each for each in (folder_of(run.config, out) for run in plan.runs) if each]
    if folders and not quiet:
        print_ending(folders, out)
    if not is_good:
        raise typer.Exit(FAILED)


def _plan(grid: Path | None, given: Mapping[str, Any], settings: list[str], out: Path) -> "Plan":
    from cl_adapters.benchmarks.sweeps.sweep_command import Plan, sweep_grid

    return Plan(sweep_grid(grid, given, settings), out)


def _say(plan: "Plan") -> None:
    from cl_adapters.cli.printing import print_table

    print_table(plan.table())
    typer.echo(plan.cost())
