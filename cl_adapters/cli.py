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
            "cl-adapters: stopped; the same command continues from the last checkpoint", err=True
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
    validation: Annotated[
        float | None,
        typer.Option(help="Share of the train images to evaluate on instead of the test images."),
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
    task_free: Annotated[
        str | None,
        typer.Option(
            help="Tell no boundaries: the detector of this name has to announce where experiences "
            "begin; see `list detectors`."
        ),
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="task-free: images that the detector judges together.")
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
    fixed_views: Annotated[
        int | None,
        typer.Option(
            help="Augmented views of an image in all, so that frozen parts meet them again; by "
            "default a new one at each use.",
            min=1,
        ),
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.")] = None,
    compile_blocks: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile", help="Let torch.compile fuse the blocks: the first use waits."
        ),
    ] = None,
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
    cache: Annotated[
        str | None,
        typer.Option(help="Folder for what frozen parts compute, or 'off'; your cache by default."),
    ] = None,
    cache_gigabytes: Annotated[float, typer.Option(help="Most that it takes on disk.")] = 4.0,
    checkpoint_minutes: Annotated[
        float,
        typer.Option(help="Between two checkpoints inside an experience; 0: each step.", min=0),
    ] = 10.0,
    logger: Annotated[
        str | None, typer.Option(help="Curves into each run directory: tensorboard,wandb")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
) -> None:
    """Runs strategies on a stream and records everything; finished runs are not repeated."""
    given = {
        "strategy": strategy, "stream": stream, "data": None if data is None else str(data),
        "protocol": protocol, "validation": validation, "increment": increment, "first": first,
        "class_order": class_order,
        "scenario": scenario, "task_free": task_free, "window": window,
        "domain_order": domain_order, "shifts": shifts, "blur": blur,
        "imbalance": imbalance, "tail": tail, "num_experiences": num_experiences,
        "repeat": repeat, "backbone": backbone, "weights": weights, "image_size": image_size,
        "input_range": input_range, "pipeline": pipeline, "augment": augment,
        "crop_scale": crop_scale, "fixed_views": fixed_views, "precision": precision,
        "compile": compile_blocks, "device": device, "threads": threads, "fidelity": fidelity,
    }  # fmt: skip
    with _one_sentence():
        logging.basicConfig(level=logging.WARNING)
        _quieten_libraries()
        from cl_adapters.benchmarks.running.batch import expand, run_batch
        from cl_adapters.cache.feature_cache import open_cache

        configs = expand(
            {name: value for name, value in given.items() if value is not None},
            recipe=recipe,
            seeds=seeds,
            settings=options or [],
        )
        kept = open_cache(cache, gigabytes=cache_gigabytes)
        run_batch(
            configs,
            out,
            restart=restart,
            quiet=quiet,
            cache=kept,
            checkpoint_minutes=checkpoint_minutes,
            loggers=[each.strip() for each in (logger or "").split(",") if each.strip()],
        )


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run directories or folders of them.")],
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
    """Writes report.html, the figures and the tables of finished runs."""
    with _one_sentence():
        from cl_adapters.reports.report import write_report

        chosen = None if formats is None else [each.strip() for each in formats.split(",")]
        summary = write_report(runs, out, force=force, baseline=baseline, formats=chosen)
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
        from cl_adapters.benchmarks.running.verify import verify as compare
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

        from cl_adapters.benchmarks.data.inspect_data import inspect_data

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


@app.command()
def sweep(
    grid: Annotated[
        Path | None, typer.Argument(help="TOML file: a recipe in which a list is an axis.")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="Strategies, separated by commas.")] = None,
    stream: Annotated[
        str | None, typer.Option(help="Built-in streams, separated by commas.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe files, separated by commas; each is a stream.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds.", min=1)] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="Values of an option: key=1,2,3 or strategy.key=1,2,3."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    engine: Annotated[
        str, typer.Option(help="local: processes of this machine; ray: a Ray cluster.")
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(help="Cluster: HOST:PORT, auto or local; by default any that is here."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Runs at once; by default what cores or cluster have room for.", min=1),
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads of each run.", min=1)] = 1,
    gpus: Annotated[str, typer.Option(help="GPUs to hand out, one a worker: 0,1")] = "",
    retries: Annotated[
        int, typer.Option(help="More tries of a run that fails for a reason outside it.", min=0)
    ] = 1,
    cache: Annotated[
        str | None,
        typer.Option(help="Folder for what frozen parts compute, or 'off'; your cache by default."),
    ] = None,
    cache_gigabytes: Annotated[float, typer.Option(help="Most that it takes on disk.")] = 4.0,
    checkpoint_minutes: Annotated[
        float,
        typer.Option(help="Between two checkpoints inside an experience; 0: each step.", min=0),
    ] = 10.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the plan and what it will cost.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
) -> None:
    """Runs a grid of strategies, streams, seeds and options; goes on where it was stopped."""
    with _one_sentence():
        logging.basicConfig(level=logging.WARNING)
        _quieten_libraries()
        from cl_adapters.benchmarks.sweeps.engines import check_engine
        from cl_adapters.benchmarks.sweeps.retries import Workers
        from cl_adapters.benchmarks.sweeps.sweep_command import (
            Plan,
            gpu_indices,
            run_sweep,
            sweep_grid,
        )

        check_engine(engine)
        if ray_address is not None and engine != "ray":
            raise InputError(f"--ray-address is for --engine ray, got it with {engine!r}")
        given = {"strategy": strategy, "stream": stream, "recipe": recipe, "seeds": seeds}
        plan = Plan(sweep_grid(grid, given, options or []), out)
        if dry_run:
            _print_table(plan.table())
            typer.echo(plan.cost())
            return
        chosen = Workers(
            count=workers,
            threads=threads,
            gpus=gpu_indices(gpus),
            cache=cache,
            cache_gigabytes=cache_gigabytes,
            checkpoint_minutes=checkpoint_minutes,
            address=ray_address,
        )
        if not run_sweep(plan, chosen, engine=engine, retries=retries, quiet=quiet):
            raise typer.Exit(_FAILED)


@app.command()
def tune(
    strategy: Annotated[str | None, typer.Option(help="The strategy to tune.")] = None,
    stream: Annotated[str | None, typer.Option(help="Built-in stream.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Image folder or parquet file, instead of --stream.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="TOML file with any key of a recipe; what `run` takes.")
    ] = None,
    increment: Annotated[int | None, typer.Option(help="Classes an experience.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the input in pixels.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="Option that is not searched: key=value."),
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            help="What to search: lr, lr=0.001:0.1, epochs=1:5:linear, peft=adapter,lora, or a "
            "TOML file of such; by default every option with rules to follow."
        ),
    ] = None,
    trials: Annotated[int, typer.Option(help="Trials in all.", min=1)] = 20,
    seeds: Annotated[int, typer.Option(help="Runs of each trial.", min=1)] = 1,
    validation: Annotated[
        float | None,
        typer.Option(help="Share of the train images that trials are judged on; by default 0.2."),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune/--no-prune", help="End trials early that fall behind.")
    ] = True,
    best: Annotated[
        Path | None, typer.Option(help="File for the best recipe, beside the study's own.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes that run trials.", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads of each.", min=1)] = 1,
    out: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    cache: Annotated[
        str | None,
        typer.Option(help="Folder for what frozen parts compute, or 'off'; your cache by default."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be searched.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
) -> None:
    """Searches a strategy's options on a part of the training images; goes on where it stopped."""
    given = {
        "strategy": strategy, "stream": stream, "data": None if data is None else str(data),
        "increment": increment, "image_size": image_size, "device": device,
        "validation": validation,
    }  # fmt: skip
    with _one_sentence():
        logging.basicConfig(level=logging.WARNING)
        _quieten_libraries()
        _need("optuna", "tune")
        from cl_adapters.benchmarks.sweeps.tune_command import (
            Effort,
            make_search,
            run_tune,
            table_of,
        )

        search = make_search(
            {name: value for name, value in given.items() if value is not None},
            recipe=recipe,
            settings=options or [],
            space=space or [],
            seeds=seeds,
            prune=prune,
            out=out,
        )
        if dry_run:
            _print_table(table_of(search))
            typer.echo(f"{trials} trials in {search.folder}")
            return
        effort = Effort(trials=trials, jobs=jobs, threads=threads, cache=cache, quiet=quiet)
        _print_table(run_tune(search, effort, best))


@app.command()
def bench(
    strategy: Annotated[
        str, typer.Option(help="Strategies, separated by commas.")
    ] = "simplecil,sema,mos,lae,finetune",
    backbone: Annotated[str, typer.Option(help="timm architecture.")] = "vit_tiny_patch16_224",
    image_size: Annotated[int, typer.Option(help="Side of the input in pixels.", min=1)] = 96,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("bench.json"),
    against: Annotated[
        Path | None, typer.Option(help="Earlier JSON file; a loss over 15 % ends with exit code 1.")
    ] = None,
    only_ratios: Annotated[
        bool, typer.Option("--only-ratios", help="Measure only what --against compares, twice.")
    ] = False,
) -> None:
    """Measures training and evaluation against the bare network, and fast against plain."""
    with _one_sentence():
        _quieten_libraries()
        from cl_adapters.benchmarks.bench import run_bench

        settings = {
            "backbone": backbone,
            "image_size": image_size,
            "precision": precision,
            "device": device,
        }
        names = [each.strip() for each in strategy.split(",") if each.strip()]
        found = run_bench(names, settings, threads, out, against, only_ratios=only_ratios)
        for table in found.tables:
            _print_table(table)
            typer.echo()
        typer.echo(f"written: {out}")
        for loss in found.losses:
            typer.echo(f"slower than in {against}: {loss}", err=True)
        if found.losses:
            raise typer.Exit(_FAILED)


@app.command()
def doctor(
    out: Annotated[Path, typer.Option(help="Folder that runs would go to.")] = Path("runs"),
) -> None:
    """Looks at versions, devices, speed and disk, and says what to mend; exit code 1 if need be."""
    with _one_sentence():
        _quieten_libraries()
        from cl_adapters.benchmarks.doctor import examine

        findings = examine(out)
        _print_table([["check", "found"], *([each.check, each.found] for each in findings)])
        advised = [each for each in findings if each.advice]
        for each in advised:
            typer.echo(f"{each.check}: {each.found}: {each.advice}")
        if advised:
            raise typer.Exit(_FAILED)
        typer.echo("nothing here would stop a run")


@app.command()
def check(
    kind: Annotated[str, typer.Argument(help="strategy, detector, adapter or stream.")],
    name: Annotated[str, typer.Argument(help="Its name, or file.py:Name.")],
    options: Annotated[
        list[str] | None, typer.Option("--set", help="Option of a strategy: key=value.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Names of checks, separated by commas; else all.")
    ] = None,
) -> None:
    """Tests a strategy, detector, adapter or stream; exit code 1 if it breaks a rule."""
    with _one_sentence():
        _quieten_libraries()
        from cl_adapters.benchmarks.conformance import check_plugin

        chosen = None if only is None else [each.strip() for each in only.split(",")]
        broken = 0
        for found in check_plugin(kind, name, settings=options or [], checks=chosen):
            typer.echo(f"{'BROKEN' if found.sentences else 'ok':<7}{found.name:<14}{found.rule}")
            for sentence in found.sentences:
                typer.echo(f"{'':<21}{sentence}")
            broken += bool(found.sentences)
        if broken:
            typer.echo(f"{name}: {broken} checks found a broken rule")
            raise typer.Exit(_FAILED)
        typer.echo(f"{name} is sound")


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help="strategy, detector, adapter or stream.")],
    name: Annotated[str, typer.Argument(help="Name of the file to write, such as my_method.")],
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path(),
) -> None:
    """Writes a strategy, detector, adapter or stream to start from, with its test."""
    with _one_sentence():
        from cl_adapters.benchmarks.scaffold import new_files, next_steps

        paths = new_files(kind, name, out)
        typer.echo(f"wrote {' and '.join(map(str, paths))}; next:")
        for line in next_steps(kind, paths[0]):
            typer.echo(f"  {line}")


@app.command("list")
def list_names(
    what: Annotated[
        str,
        typer.Argument(
            help="strategies, streams, protocols, backbones, pefts, detectors, policies, runs."
        ),
    ] = "strategies",
    out: Annotated[Path, typer.Option(help="Folder of all runs, for `list runs`.")] = Path("runs"),
) -> None:
    """Lists what exists by name, strategies with their options."""
    with _one_sentence():
        _quieten_libraries()
        from cl_adapters.benchmarks.listing import list_table

        _print_table(list_table(what, out))


def _need(module: str, extra: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise InputError(f"`{extra}` needs {module}: pip install 'cl-adapters[{extra}]'")


def _quieten_libraries() -> None:
    # Avalanche's dependency warns at import that it found no QP solver, which nothing here uses.
    import os
    import warnings

    warnings.filterwarnings("ignore", message="no QP solver found")
    # torch.compile looks at its own graph, and for a GPU toolkit where there is no GPU.
    warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    os.environ.setdefault("PYTHONWARNINGS", "ignore:no QP solver found")  # in a sweep's processes
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
