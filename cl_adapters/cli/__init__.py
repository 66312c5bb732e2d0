"""The command `cl-adapters`, one file a command or two.

Exit codes: 0 good, 1 a run failed or was interrupted, or a check found something (`verify`, `data
inspect`), 2 bad input, 141 nobody reads any more what is said. A command is imported when it is
called, and what is heavy inside it, so that help answers before anything could load.
"""

from typing import Annotated, Final

import typer

from cl_adapters import __version__
from cl_adapters.cli.commands import Command, LazyGroup
from cl_adapters.cli.endings import call_whole
from cl_adapters.loading import whole_process

__all__ = ["COMMANDS", "app", "main"]

COMMANDS: Final = {
    "run": Command(
        "cl_adapters.cli.run:run",
        "Runs strategies on a stream and records everything; finished runs are not repeated.",
    ),
    "continue": Command(
        "cl_adapters.cli.continuing:continue_run",
        "Learns further images on top of what a finished run has learned, as a run of its own.",
        (
            "cl-adapters continue runs/photos/mos/seed0-1a2b3c4d --data photos-in-may",
            "cl-adapters continue RUN --data month2 --increment 5 --old-test kept/test",
        ),
    ),
    "report": Command(
        "cl_adapters.cli.report:report",
        "Writes report.html, the figures and the tables of finished runs.",
        (
            "cl-adapters report runs --out report --open",
            "cl-adapters report runs/digits --baseline finetune --formats svg,pdf",
            "cl-adapters report runs --style paper --columns a_last,a_avg,forgetting,parameters",
        ),
    ),
    "predict": Command(
        "cl_adapters.cli.predict:predict",
        "Says what a trained model takes images for; exit code 1 if some could not be read.",
        (
            "cl-adapters predict runs/photos/sema new-photos",
            "cl-adapters predict bundle new-photos --top 3 --out answers.csv",
            "cl-adapters predict bundle labelled-photos --labels",
        ),
    ),
    "export": Command(
        "cl_adapters.cli.export:export",
        "Writes a trained model with its card as a bundle, to be used anywhere.",
        (
            "cl-adapters export runs/photos/sema --out bundle",
            "cl-adapters export runs/photos/sema --out bundle --with-backbone",
        ),
    ),
    "ablate": Command(
        "cl_adapters.cli.ablate:ablate",
        "Answers finished runs' test images without each grown adapter, to see what it is worth.",
        ("cl-adapters ablate runs/photos/sema", "cl-adapters report runs --out report"),
    ),
    "verify": Command(
        "cl_adapters.cli.verifying:verify",
        "Compares runs with published results; exit code 1 if a gap is outside its tolerance.",
        (
            "cl-adapters verify runs",
            "cl-adapters verify --rows --strategy ranpac,aper --data cifar100/",
        ),
    ),
    "data": Command("cl_adapters.cli.data:app", "Looks at images before a run does."),
    "sweep": Command(
        "cl_adapters.cli.sweep:sweep",
        "Runs a grid of strategies, streams, seeds and options; goes on where it was stopped.",
    ),
    "tune": Command(
        "cl_adapters.cli.tune:tune",
        "Searches a strategy's options on a part of the training images; goes on where it stopped.",
    ),
    "bench": Command(
        "cl_adapters.cli.bench:bench",
        "Measures training and evaluation against the bare network, and fast against plain.",
    ),
    "doctor": Command(
        "cl_adapters.cli.bench:doctor",
        "Looks at versions, devices, speed and disk, and says what to mend; exit code 1 if need "
        "be.",
    ),
    "check": Command(
        "cl_adapters.cli.plugins:check",
        "Tests a strategy, detector, adapter, router or stream; exit code 1 if it breaks a rule.",
    ),
    "new": Command(
        "cl_adapters.cli.plugins:new",
        "Writes a strategy, detector, adapter, router or stream to start from, with its test.",
    ),
    "list": Command(
        "cl_adapters.cli.listing:list_names",
        "Lists what exists by name, strategies with their options.",
    ),
}


class _Commands(LazyGroup):
    table = COMMANDS


# Plain help: the one with frames would import a Markdown parser first.
app = typer.Typer(
    name="cl-adapters",
    cls=_Commands,
    help="Continual learning on a frozen Vision Transformer with adapters.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _say_version(*, is_asked: bool) -> None:
    if is_asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version.",
            is_eager=True,
            callback=lambda value: _say_version(is_asked=value),
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command; the entry point of the package."""
    with whole_process():
        call_whole(app)
