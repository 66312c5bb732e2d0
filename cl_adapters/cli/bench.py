"""`cl-adapters bench` and `doctor`: how fast it is here, and what stands in a run's way."""

from pathlib import Path
from typing import Annotated

import typer

from cl_adapters.cli.endings import FAILED
from cl_adapters.cli.shared_options import names_in

__all__ = ["bench", "doctor"]


def bench(
    strategy: Annotated[
        str, typer.Option(help="Strategies, separated by commas.")
    ] = "simplecil,sema,mos,lae,finetune",
    backbone: Annotated[str, typer.Option(help="timm architecture.")] = "vit_tiny_patch16_224",
    image_size: Annotated[
        int, typer.Option(help="Side of the input in pixels.", min=1, max=16384)
    ] = 96,
    images: Annotated[
        int, typer.Option(help="Training images a class; two classes an experience.", min=1)
    ] = 48,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1, max=1024)] = 1,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("bench.json"),
    against: Annotated[
        Path | None, typer.Option(help="Earlier JSON file; a loss over 15 % ends with exit code 1.")
    ] = None,
    only_ratios: Annotated[
        bool, typer.Option("--only-ratios", help="Measure only what --against compares, twice.")
    ] = False,
) -> None:
    """Measures speed."""
    from cl_adapters.benchmarks.bench import run_bench
    from cl_adapters.cli.printing import print_table

    settings: dict[str, str | int] = {
        "backbone": backbone,
        "image_size": image_size,
        "train": images,
        "precision": precision,
        "device": device,
    }
    found = run_bench(names_in(strategy), settings, threads, out, against, only_ratios=only_ratios)
    for table in found.tables:
        print_table(table)
        typer.echo()
    typer.echo(f"written: {out}")
    for loss in found.losses:
        typer.echo(f"slower than in {against}: {loss}", err=True)
    if found.losses:
        raise typer.Exit(FAILED)


def doctor(
    out: Annotated[Path, typer.Option(help="Folder that runs would go to.")] = Path("runs"),
    weights: Annotated[
        Path | None, typer.Option(help="Look into a file of weights instead, and only there.")
    ] = None,
) -> None:
    """Looks at what a run would need."""
    from cl_adapters.benchmarks.doctor import examine, examine_weights
    from cl_adapters.cli.printing import print_table

    findings = examine(out) if weights is None else examine_weights(weights)
    print_table([["check", "found"], *([each.check, each.found] for each in findings)])
    advised = [each for each in findings if each.advice]
    for each in advised:
        typer.echo(f"{each.check}: {each.found}: {each.advice}")
    if advised:
        raise typer.Exit(FAILED)
    typer.echo("nothing here would stop a run")
