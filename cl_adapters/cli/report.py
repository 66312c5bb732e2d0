"""`cl-adapters report`: what finished runs say."""

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cl_adapters.cli.shared_options import Runs, names_in
from cl_adapters.cli.starting import loading_figures
from cl_adapters.errors import InputError, unknown_name

if TYPE_CHECKING:
    from cl_adapters.reports.paper import Paper

__all__ = ["report"]


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
    columns: Annotated[
        str | None,
        typer.Option(
            help="Columns of the table for a paper: a_last,a_avg,forgetting,parameters, or names "
            "of the report's CSV files."
        ),
    ] = None,
    style: Annotated[
        str, typer.Option(help="page, or paper: figures as wide as a paper's column, too.")
    ] = "page",
    column_width: Annotated[
        float | None, typer.Option(help="Of that column, in inches; 3.25 by default.")
    ] = None,
    open_page: Annotated[
        bool, typer.Option("--open", help="Show the page in the browser.")
    ] = False,
) -> None:
    """Writes a report."""
    with loading_figures():
        from cl_adapters.cli.printing import print_table
        from cl_adapters.reports.report import write_report

    chosen = None if formats is None else [each.strip() for each in formats.split(",")]
    paper = _paper(columns, style, column_width)
    typer.echo("reading runs and drawing figures", err=True)
    summary = write_report(runs, out, force=force, baseline=baseline, formats=chosen, paper=paper)
    for line in (*summary.sentences, *summary.notes):
        typer.echo(line)
    print_table(summary.table)
    typer.echo(f"report: {summary.html}")
    if open_page and not _is_shown(summary.html):
        typer.echo("no browser could be started here; the page opens from any")


def _paper(columns: str | None, style: str, column_width: float | None) -> "Paper":
    from cl_adapters.reports.paper import COLUMN_INCHES, PAPER_COLUMNS, STYLES, Paper, paper_columns

    if style not in STYLES:
        raise unknown_name("style", style, STYLES)
    if column_width is not None and style != "paper":
        raise InputError(f"--column-width needs --style paper, got --style {style}")
    names = PAPER_COLUMNS if columns is None else paper_columns(names_in(columns))
    width = COLUMN_INCHES if column_width is None else column_width
    return Paper(columns=names, column_width=width if style == "paper" else None)


def _is_shown(page: Path) -> bool:
    try:
        return webbrowser.open(page.resolve().as_uri())
    except (OSError, webbrowser.Error):
        return False
