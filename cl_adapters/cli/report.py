"""`cl-adapters report` and `verify`: what finished runs say."""

from pathlib import Path
from typing import Annotated

import typer

from cl_adapters.cli.endings import FAILED
from cl_adapters.cli.shared_options import Runs
from cl_adapters.errors import InputError

__all__ = ["report", "verify"]


def report(
    runs: Runs,
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("report"),
    force: Annotated[
        bool, typer.Option("--force", help="Compare runs of different protocols.")
    ] = False,
    baseline: Annotated[
        str | None,
        typer.Option(help="Method that the others are held against; by default simplecil."),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            help="Formats of every figure: svg,png,pdf. By default all three of the comparison's, "
            "svg of those of one method."
        ),
    ] = None,
) -> None:
    """Writes a report."""
    from cl_adapters.cli.printing import print_table
    from cl_adapters.reports.report import write_report

    chosen = None if formats is None else [each.strip() for each in formats.split(",")]
    summary = write_report(runs, out, force=force, baseline=baseline, formats=chosen)
    for line in (*summary.sentences, *summary.notes):
        typer.echo(line)
    print_table(summary.table)
    typer.echo(f"report: {summary.html}")


def verify(runs: Runs) -> None:
    """Compares runs with published results."""
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
    if not found.cells:
        raise InputError(
            "run folders must hold a finished run with a published result to compare with, got none"
        )
    if not found.is_good:
        raise typer.Exit(FAILED)
