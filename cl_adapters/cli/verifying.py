"""`cl-adapters verify`: runs beside published results, and the results that no run covers."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cl_adapters.cli.endings import FAILED
from cl_adapters.cli.shared_options import names_in
from cl_adapters.cli.starting import loading
from cl_adapters.errors import InputError, unknown_name

if TYPE_CHECKING:
    from cl_adapters.benchmarks.running.machine import Images, Machine
    from cl_adapters.benchmarks.running.reach import PublishedRun
    from cl_adapters.benchmarks.running.verify import Verification

__all__ = ["verify"]


def verify(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run directories or folders of them.")
    ] = None,
    rows: Annotated[
        bool,
        typer.Option(
            "--rows", help="List the published results instead, each with its command; no runs."
        ),
    ] = False,
    strategy: Annotated[
        str | None, typer.Option(help="With --rows: of these strategies, separated by commas.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Images that lie here; which results that puts within reach is said."),
    ] = None,
) -> None:
    """Compares runs with published results."""
    if bool(runs) == rows:
        got = "both" if rows else "neither"
        raise InputError(f"verify must be given either run folders or --rows, got {got}")
    if strategy is not None and not rows:
        raise InputError(f"--strategy must stand beside --rows, got --strategy {strategy} alone")
    with loading():
        from cl_adapters.benchmarks.running.machine import images_at

    images = [images_at(each) for each in data or []]
    if runs:
        _compare(runs, images)
    else:
        _list_rows(names_in(strategy), images)


def _compare(runs: Sequence[Path], images: Sequence["Images"]) -> None:
    with loading():
        from cl_adapters.benchmarks.running.machine import images_of
        from cl_adapters.benchmarks.running.verify import verify as compare
        from cl_adapters.cli.printing import print_table
        from cl_adapters.reports.load import load_runs

    loaded = load_runs(runs)
    found = compare(loaded.finished)
    left_out = [
        *found.left_out,
        *((folder, f"is {record.state}") for folder, record in loaded.unfinished),
        *((broken.folder, f"is broken: {broken.reason}") for broken in loaded.broken),
    ]
    if found.cells:
        print_table(found.table())
    for note in loaded.notes():
        typer.echo(f"note: {note}")
    for folder, reason in left_out:
        typer.echo(f"not compared: {folder}: {reason}")
    records = [run.record for run in loaded.finished]
    known = [each for each in map(images_of, records) if each is not None]
    _list_uncovered({each.strategy for each in records}, [*images, *known], found)
    if not found.cells:
        raise InputError(
            "run folders must hold a finished run with a published result to compare with, got none"
        )
    if not found.is_good:
        raise typer.Exit(FAILED)


def _list_uncovered(
    strategies: Collection[str], images: Sequence["Images"], found: "Verification"
) -> None:
    """Prints the published results of some strategies that no run meets, and why not."""
    with loading():
        from cl_adapters.benchmarks.running.machine import this_machine
        from cl_adapters.benchmarks.running.reach import published_runs
        from cl_adapters.cli.printing import print_table

    met = {cell.reference for cell in found.cells}
    missing = [
        run for run in published_runs(strategies) if run.is_certain and met.isdisjoint(run.rows)
    ]
    if not missing:
        return
    machine = this_machine(images)
    table = [["covered by no run", "protocol", "weights", "published", "on this machine"]]
    for run in missing:
        tag = run.backbone.rpartition(".")[2]
        table.append([run.title, run.protocol, tag, run.numbers, _reach(run, machine)])
    print_table(table)
    names = ",".join(sorted({run.strategy for run in missing}))
    typer.echo(f"commands: cl-adapters verify --rows --strategy {names}")


def _list_rows(strategies: Sequence[str], images: Sequence["Images"]) -> None:
    """Prints every published result with its command and what keeps it out of reach."""
    with loading():
        from cl_adapters.benchmarks.running.machine import this_machine
        from cl_adapters.benchmarks.running.reach import published_runs, without_protocol
        from cl_adapters.strategies import STRATEGIES

    for name in strategies:
        if name not in STRATEGIES:
            raise unknown_name("strategy", name, STRATEGIES)
    asked = strategies or sorted(STRATEGIES)
    found, others = published_runs(asked), list(without_protocol(asked))
    machine = this_machine(images)
    for run in found:
        tag = run.backbone.rpartition(".")[2] or "weights not stated"
        typer.echo(f"{run.title}, {run.protocol}, {tag}: {run.numbers}")
        typer.echo(f"  {run.command}")
        typer.echo(f"  on this machine: {_reach(run, machine)}")
    for row in others:
        typer.echo(f"{row.method}: {row.metric} {row.value:g}: out of reach: {row.note}")
    known = {run.strategy for run in found} | {row.strategy for row in others}
    for name in strategies:
        if name not in known:
            typer.echo(f"{name}: no published result is known here")


def _reach(run: "PublishedRun", machine: "Machine") -> str:
    from cl_adapters.benchmarks.running.reach import hours, obstacles

    reasons, spent = obstacles(run, machine), hours(run, machine)
    least = "" if spent is None else f", at least {spent:.1f} hours of passes"
    return f"out of reach: {'; '.join(reasons)}" if reasons else f"within reach{least}"
