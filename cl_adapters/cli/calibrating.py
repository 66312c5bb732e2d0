"""What `predict` says of images of no known class and of folders that look shifted."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import pandas as pd

    from cl_adapters.bundle.model import LearnedModel
    from cl_adapters.bundle.watching import BlockVerdict, Seen

__all__ = ["calibrate", "print_findings"]


def calibrate(
    path: Path, learned: "LearnedModel", *, reject: float | None, watch: bool, quiet: bool
) -> None:
    """Sees to it that a model can reject images and watch for shifts, as far as it was asked for.

    Args:
        path: The run or bundle that it was loaded from.
        learned: It.
        reject: Share of known images to reject; None for none.
        watch: Whether to watch for shifts.
        quiet: Say nothing.

    Raises:
        InputError: If it cannot.
    """
    from cl_adapters.benchmarks.calibration import calibrate as measure
    from cl_adapters.bundle.files import model_folder
    from cl_adapters.cli.counting import counted
    from cl_adapters.errors import InputError

    lacks = learned.calibration is None and (reject is not None or learned.watch is None)
    if lacks and (reject is not None or watch):
        folder, asked = model_folder(path), "--watch" if reject is None else "--reject"
        if not (folder / "run.json").exists():
            raise InputError(
                f"`{asked}` must find a calibration in bundle {str(folder)!r}, which was exported "
                "without one; export it where the run's training images are"
            )
        if not quiet:
            typer.echo(
                f"`{asked}` is calibrated on the run's training images; a bundle keeps it",
                err=True,
            )
        with counted("calibrating", quiet=quiet) as on_image:
            measure(folder, learned, on_image=on_image)
    if reject is not None:
        learned.threshold(reject)  # too few images for so small a rate are refused at once


def print_findings(table: "pd.DataFrame", learned: "LearnedModel", seen: "Seen | None") -> None:
    """Prints how many images are of no known class, and whether they look shifted, if it was asked.

    Args:
        table: What was answered.
        learned: What answered it.
        seen: What was kept of the images to judge them; None if nothing.
    """
    if "known" in table:
        _print_unknown(table)
    if seen is not None and learned.watch is not None:
        _print_verdicts(learned.watch.judge(seen))


def _print_unknown(table: "pd.DataFrame") -> None:
    rejected = int((~table["known"]).sum())
    share = 100 * rejected / len(table)
    typer.echo(f"{rejected:,} of {len(table):,} images ({share:.1f} %) are of no known class")


def _print_verdicts(verdicts: "list[BlockVerdict]") -> None:
    from cl_adapters.cli.printing import print_table

    shifted = [str(each.block) for each in verdicts if each.is_shifted]
    rows = [
        [
            str(each.block),
            "yes" if each.is_shifted else "no",
            f"{each.all.score:.2f}",
            f"{each.all.threshold:.2f}",
            f"{each.fired} of {each.windows}",
        ]
        for each in verdicts
    ]
    print_table([["block", "shifted", "score", "threshold", "windows that look shifted"], *rows])
    where = f"block{'s' * (len(shifted) > 1)} {', '.join(shifted)}"
    typer.echo(
        f"the images look other than those of training, in {where}"
        if shifted
        else "the images look like those of training"
    )
