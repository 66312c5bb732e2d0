"""The command `cl-adapters`.

Exit codes: 0 good, 1 a run failed or was interrupted, or a check found something (`verify`, `data
inspect`), 2 bad input. Everything heavy is imported inside the commands, so that `--help` answers
before torch could load.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from cl_adapters.errors import InputError, RunError

__all__ = ["app", "main"]

_FAILED: Final = 1
_BAD_INPUT: Final = 2

app = typer.Typer(
    name="cl-adapters",
    help="Continual learning on a frozen Vision Transformer with adapters.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

data_app = typer.Typer(help="Looks at images before a run does.", no_args_is_help=True)
app.add_typer(data_app, name="data")


def main() -> None:
    """Runs the command; the entry point of the package."""
    app()


@contextmanager
def _one_sentence() -> Iterator[None]:
    # What the user can mend ends in one sentence and an exit code, never in a traceback.
    try:
        yield
    except InputError as error:
        typer.echo(f"cl-adapters: {error}", err=True)
        raise typer.Exit(_BAD_INPUT) from error
    except (RunError, OSError) as error:
        typer.echo(
            f"cl-adapters: {error}; what was finished is kept, the same command continues", err=True
        )
        raise typer.Exit(_FAILED) from error
    except KeyboardInterrupt as error:
        typer.echo(
            "cl-adapters: stopped; the same command continues from the last experience", err=True
        )
        raise typer.Exit(_FAILED) from error


# Options that are keys of the recipe stand here under the same names; None means "not given".
@app.command()
def run(
    strategy: Annotated[str | None, typer.Option(help="Strategies, separated by commas.")] = None,
    stream: Annotated[
        str | None, typer.Option(help="Built-in stream: digits or digits-shift.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Image folder or parquet file, instead of --stream.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Published setting by name, with --data; see `list protocols`."),
    ] = None,
    increment: Annotated[int | None, typer.Option(help="Classes an experience.")] = None,
    first: Annotated[
        int | None, typer.Option(help="Classes of the first experience (Bm-IncN).")
    ] = None,
    class_order: Annotated[
        str | None, typer.Option(help="natural, seeded, numpy1993, or positions: 3,0,1,2")
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(
            help="What an experience brings: class, domain, shift, blurry, long_tailed, "
            "repetition or class_domain."
        ),
    ] = None,
    domain_order: Annotated[
        str | None, typer.Option(help="natural (by name), seeded, or names: photo,sketch")
    ] = None,
    shifts: Annotated[
        str | None, typer.Option(help="Kinds of change of a shift stream: rotation,blur,noise")
    ] = None,
    blur: Annotated[
        float | None, typer.Option(help="blurry: share of each class that leaks, in [0, 1).")
    ] = None,
    imbalance: Annotated[
        float | None, typer.Option(help="long_tailed: largest over smallest class.")
    ] = None,
    tail: Annotated[
        str | None, typer.Option(help="long_tailed: ordered (as the classes come) or shuffled.")
    ] = None,
    num_experiences: Annotated[
        int | None, typer.Option(help="repetition, shift: number of experiences.")
    ] = None,
    repeat: Annotated[
        float | None, typer.Option(help="repetition: probability of a class to return.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="How many seeds, from 0 or the protocol's first on.", min=1)
    ] = 1,
    backbone: Annotated[
        str | None, typer.Option(help="timm architecture.tag, or the embedded one.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weights file (.safetensors, .npz, .pt) or 'random'.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the input in pixels.")] = None,
    input_range: Annotated[str | None, typer.Option(help="timm, pilot_01 or imagenet.")] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="Pixels: plain, or pilot or lae as their authors' code.")
    ] = None,
    augment: Annotated[
        str | None, typer.Option(help="In training: none, crop or crop_flip.")
    ] = None,
    crop_scale: Annotated[
        float | None, typer.Option(help="Smallest share of the area that a random crop keeps.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    fidelity: Annotated[
        str | None, typer.Option(help="default or official: quirks of the authors' code.")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="Option of the method: key=value or strategy.key=value."),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="TOML file with any of these options.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    restart: Annotated[
        bool, typer.Option("--restart/--resume", help="Begin again, or continue.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
) -> None:
    """Runs strategies on a stream and records everything; finished runs are not repeated."""
    given = {
        "strategy": strategy, "stream": stream, "data": None if data is None else str(data),
        "protocol": protocol, "increment": increment, "first": first, "class_order": class_order,
        "scenario": scenario, "domain_order": domain_order, "shifts": shifts, "blur": blur,
        "imbalance": imbalance, "tail": tail, "num_experiences": num_experiences,
        "repeat": repeat, "backbone": backbone, "weights": weights, "image_size": image_size,
        "input_range": input_range, "pipeline": pipeline, "augment": augment,
        "crop_scale": crop_scale, "precision": precision, "device": device, "threads": threads,
        "fidelity": fidelity,
    }  # fmt: skip
    with _one_sentence():
        logging.basicConfig(level=logging.WARNING)
        _quieten_libraries()
        from cl_adapters.benchmarks.batch import expand, run_batch

        configs = expand(
            {name: value for name, value in given.items() if value is not None},
            recipe=recipe,
            seeds=seeds,
            settings=options or [],
        )
        run_batch(configs, out, restart=restart, quiet=quiet)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run directories or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("report"),
    force: Annotated[
        bool, typer.Option("--force", help="Compare runs of different protocols.")
    ] = False,
) -> None:
    """Writes report.html, the figures and the tables of finished runs."""
    with _one_sentence():
        from cl_adapters.reports.report import write_report

        summary = write_report(runs, out, force=force)
        for line in (*summary.sentences, *summary.notes):
            typer.echo(line)
        _print_table(summary.table)
        typer.echo(f"report: {summary.html}")


@app.command()
def verify(
    runs: Annotated[list[Path], typer.Argument(help="Run directories or folders of them.")],
) -> None:
    """Compares runs with published results; exit code 1 if a gap is outside its tolerance."""
    with _one_sentence():
        _quieten_libraries()
        from cl_adapters.benchmarks.verify import verify as compare
        from cl_adapters.reports.load import load_runs

        loaded = load_runs(runs)
        found = compare(loaded.finished)
        left_out = [
            *found.left_out,
            *((folder, f"is {record.state}") for folder, record in loaded.unfinished),
            *((broken.folder, f"is broken: {broken.reason}") for broken in loaded.broken),
        ]
        if found.cells:
            _print_table(found.table())
        for folder, reason in left_out:
            typer.echo(f"not compared: {folder}: {reason}")
        if not found.cells:
            raise InputError(
                "run folders must hold a finished run with a published result to compare with, "
                "got none"
            )
        if not found.is_good:
            raise typer.Exit(_FAILED)


@data_app.command("inspect")
def inspect_images(
    path: Annotated[Path, typer.Argument(help="Image folder or parquet file.")],
) -> None:
    """Reports classes, sizes, duplicates and damage; exit code 1 if any would spoil a run."""
    with _one_sentence():
        _quieten_libraries()
        from rich.console import Console
        from rich.progress import Progress

        from cl_adapters.benchmarks.inspect_data import inspect_data

        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("reading", total=None)
            found = inspect_data(path, lambda total: bar.update(task, total=total, advance=1))
        for rows in (found.summary(), found.class_table(), found.finding_table()):
            if len(rows) > 1:
                _print_table(rows)
                typer.echo()
        if not found.is_good:
            raise typer.Exit(_FAILED)
        typer.echo("nothing here would stop a run or distort its results")


@app.command("list")
def list_names(
    what: Annotated[
        str,
        typer.Argument(
            help="strategies, streams, protocols, backbones, pets, detectors, policies, runs."
        ),
    ] = "strategies",
    out: Annotated[Path, typer.Option(help="Folder of all runs, for `list runs`.")] = Path("runs"),
) -> None:
    """Lists what exists by name, strategies with their options."""
    with _one_sentence():
        _quieten_libraries()
        from cl_adapters.benchmarks.listing import list_table

        _print_table(list_table(what, out))


def _quieten_libraries() -> None:
    # Avalanche's dependency warns at import that it found no QP solver, which nothing here uses.
    import warnings

    warnings.filterwarnings("ignore", message="no QP solver found")
    # Where timm's hub cannot be reached, its client warns at each retry; one sentence follows.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    header, *body = rows
    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(Text(name))
    for row in body:
        table.add_row(*map(Text, row))  # as text: a name such as [red] is no markup
    # Piped output has no terminal whose width could cut the columns.
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200).print(table)
