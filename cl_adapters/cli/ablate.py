"""`cl-adapters ablate`: what each grown adapter of finished runs is worth."""

from typing import TYPE_CHECKING, Annotated

import typer

from cl_adapters.cli.shared_options import Quiet, Runs
from cl_adapters.cli.starting import loading_methods
from cl_adapters.errors import InputError
from cl_adapters.records.run_record import find_runs

if TYPE_CHECKING:
    from cl_adapters.records.ablation import Ablation, Without

__all__ = ["ablate"]


def ablate(
    runs: Runs,
    threads: Annotated[int | None, typer.Option(help="CPU threads; torch's choice.", min=1)] = None,
    quiet: Quiet = False,
) -> None:
    """Measures what grown adapters are worth."""
    folders = find_runs(runs)
    if not folders:
        raise InputError(f"no run.json below {', '.join(map(str, runs))}")
    with loading_methods(quiet=quiet):
        import torch

        from cl_adapters.benchmarks.ablation import ablate as measure
    if threads is not None:
        torch.set_num_threads(threads)
    refusals: list[InputError] = []
    for folder in folders:
        try:
            found = measure(folder)
        except InputError as error:
            refusals.append(error)
        else:
            _say(f"{folder}: {_told(found)}", quiet=quiet)
    if len(refusals) == len(folders):
        raise refusals[0]
    for each in refusals:
        typer.echo(f"note: left out: {each}", err=True)
    _say(
        f"figures and more: cl-adapters report {' '.join(map(str, runs))} --out report", quiet=quiet
    )


def _say(text: str, *, quiet: bool) -> None:
    if not quiet:
        typer.echo(text)


def _told(found: "Ablation") -> str:
    total = sum(found.images)
    whole = sum(found.right)

    def lost(each: "Without") -> float:
        return 100 * (whole - sum(each.right)) / total

    every, *single = found.without
    best, worst = max(single, key=lost), min(single, key=lost)
    number = f"{len(single)} grown {found.unit}{'s' * (len(single) > 1)}"
    said = [f"{100 * whole / total:.1f} % right, {lost(every):+.1f} points by {number}"]
    if lost(best) > lost(worst):
        said += [f"most by {_name(best, found.unit)} ({lost(best):+.1f})"]
        said += [f"least by {_name(worst, found.unit)} ({lost(worst):+.1f})"]
    return "; ".join(said)


def _name(each: "Without", unit: str) -> str:
    block, number = each.adapters[0]
    if unit == "adapter":
        return f"adapter {number + 1} of block {block}"
    return f"{unit} {number + 1}"
