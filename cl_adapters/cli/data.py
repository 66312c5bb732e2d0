"""`cl-adapters data`: looks at images before a run does."""

from pathlib import Path
from typing import Annotated

import typer

from cl_adapters.cli.commands import OneCommand
from cl_adapters.cli.endings import FAILED, guarded
from cl_adapters.cli.starting import loading

__all__ = ["app", "inspect_images"]

app = typer.Typer(
    help="Looks at images before a run does.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _data() -> None:
    pass


def inspect_images(
    path: Annotated[Path, typer.Argument(help="Image folder, parquet or csv file.")],
    class_depth: Annotated[
        int | None, typer.Option(help="How many folders down the classes lie.", min=1)
    ] = None,
    domain_folders: Annotated[
        bool,
        typer.Option("--domain-folders", help="The classes lie in folders that are domains."),
    ] = False,
    image_column: Annotated[
        str | None, typer.Option(help="Column of a table with images or their files.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of a table with the classes.")
    ] = None,
    test_set: Annotated[
        str | None, typer.Option(help="Set to test on where there are both: test or validation.")
    ] = None,
    max_megapixels: Annotated[
        float | None, typer.Option(help="Largest image that is decoded.")
    ] = None,
) -> None:
    """Reports classes, sizes, duplicates and damage; exit code 1 if any would spoil a run."""
    with loading():
        from cl_adapters.benchmarks.data.inspect_data import inspect_data
        from cl_adapters.benchmarks.data.reading import ReadOptions, pixels_of, test_set_of
        from cl_adapters.cli.counting import counted
        from cl_adapters.cli.printing import print_table

    options = ReadOptions(
        class_depth=class_depth,
        domain_folders=domain_folders or None,
        image_column=image_column,
        label_column=label_column,
        max_pixels=pixels_of(max_megapixels),
        test_set=test_set_of(test_set),
    )
    with counted("reading") as on_image:
        found = inspect_data(path, on_image, options)
    for rows in (found.summary(), found.class_table(), found.finding_table()):
        if len(rows) > 1:
            print_table(rows)
            typer.echo()
    if not found.is_good:
        raise typer.Exit(FAILED)
    typer.echo("nothing here would stop a run or distort its results")


app.command("inspect", cls=OneCommand)(guarded(inspect_images))
