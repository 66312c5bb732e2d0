"""`cl-adapters export`: a trained model, to be used elsewhere."""

import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cl_adapters.cli.predict import Model, Weights
from cl_adapters.cli.shared_options import Quiet
from cl_adapters.cli.starting import loading_methods

__all__ = ["export"]


def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="Where to write; must not exist.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="bundle: a folder that `predict` and Python load; onnx or torch-export: a fixed "
            "graph that runs without this package.",
        ),
    ] = "bundle",
    with_backbone: Annotated[
        bool,
        typer.Option("--with-backbone", help="Take the frozen backbone's weights along."),
    ] = False,
    rejection: Annotated[
        bool | None,
        typer.Option(
            "--rejection/--no-rejection",
            help="Take along what `predict --reject` and `--watch` need, which the run's training "
            "images tell; by default where these are there.",
        ),
    ] = None,
    weights: Weights = None,
    check: Annotated[
        list[Path] | None,
        typer.Option(
            help="Images to compare a graph with the model on; by default the run's test images."
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest difference of a probability between graph and model; by default 0.0001."
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Writes a trained model."""
    with loading_methods(quiet=quiet):
        from cl_adapters.api import export as write
        from cl_adapters.benchmarks.exporting import export_model_graph, graph_format

    is_graph = format_ != "bundle"
    kind = graph_format(format_) if is_graph else None
    _check_options(
        format_,
        {"with-backbone": with_backbone, "rejection": rejection is not None}
        if is_graph
        else {"check": bool(check), "tolerance": tolerance is not None},
    )
    if kind is not None:
        found = export_model_graph(
            model,
            out,
            kind,
            check=check or (),
            weights=weights,
            **({} if tolerance is None else {"tolerance": tolerance}),
        )
        if not quiet:
            same = round(found.same_top * found.images)
            typer.echo(f"{out}: {_megabytes(out)}, its pixels are described in preprocess.json")
            typer.echo(
                f"checked: the model's class for {same:,} of {found.images:,} images, "
                f"probabilities within {found.worst:.1g}"
            )
        return

    written = write(
        model,
        out,
        format=format_,
        with_backbone=with_backbone,
        rejection=rejection,
        weights=weights,
        say=partial(typer.echo, err=True) if not quiet else lambda _: None,
    )
    if not quiet:
        typer.echo(f"{written}: {_megabytes(written)}, its card is {written / 'README.md'}")
        typer.echo(f"use it: cl-adapters predict {shlex.quote(str(written))} PHOTOS")


def _check_options(format_: str, given: Mapping[str, bool]) -> None:
    from cl_adapters.errors import InputError

    for name, is_given in given.items():
        if is_given:
            raise InputError(f"`--{name}` must go with another format, got `--format {format_}`")


def _megabytes(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.iterdir())
    return f"{size / 10**6:,.1f} MB"
