"""`cl-adapters predict`: what a trained model takes images for."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cl_adapters.cli.calibrating import calibrate, print_findings
from cl_adapters.cli.endings import FAILED
from cl_adapters.cli.shared_options import Quiet
from cl_adapters.cli.starting import loading_methods

if TYPE_CHECKING:
    import pandas as pd

    from cl_adapters.benchmarks.data.reading import LeftOut
    from cl_adapters.benchmarks.prediction import Confusion, Prediction
    from cl_adapters.bundle.model import LearnedModel

__all__ = ["Device", "Model", "Weights", "predict"]

Model = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run directory, a folder with one run, or a bundle.")
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps or auto.")]
Weights = Annotated[
    Path | None,
    typer.Option(help="File of the frozen backbone, if it is no longer where the run had it."),
]

_SHOWN: Final = 40  # images on the terminal; more are counted by class
_LISTED: Final = 10


def predict(
    model: Model,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Images, folders, parquet files.")
    ],
    top: Annotated[int, typer.Option(help="How many classes to name for an image.", min=1)] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Table of all answers: .csv, .parquet or .json.")
    ] = None,
    copy_to: Annotated[
        Path | None, typer.Option(help="Copy each image to DIR/<class>/.", metavar="DIR")
    ] = None,
    labels: Annotated[
        bool,
        typer.Option(
            "--labels", help="Folder names are the true classes: print accuracy and confusions."
        ),
    ] = False,
    reject: Annotated[
        float | None,
        typer.Option(
            help="Answer images of no known class `unknown`: those whose score lies above a "
            "threshold that this share of images of known classes exceeds, in (0, 1).",
            metavar="RATE",
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Say whether the images look other than those of training, by block."
        ),
    ] = False,
    image_column: Annotated[
        str | None, typer.Option(help="Column of a table with images; by default found.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of a table with classes; by default found.")
    ] = None,
    max_megapixels: Annotated[
        float | None, typer.Option(help="Largest image that is decoded; by default 89.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images a forward pass.", min=1)] = 64,
    device: Device = "cpu",
    precision: Annotated[
        str | None, typer.Option(help="fp32 or bf16; by default the run's.")
    ] = None,
    weights: Weights = None,
    quiet: Quiet = False,
) -> None:
    """Answers images."""
    with loading_methods(quiet=quiet):
        from cl_adapters.benchmarks.data.pictures import find_pictures
        from cl_adapters.benchmarks.data.reading import ReadOptions, pixels_of
        from cl_adapters.benchmarks.prediction import check_labels, check_table_path
        from cl_adapters.benchmarks.prediction import predict as answer
        from cl_adapters.bundle.files import load
        from cl_adapters.bundle.rejection import check_rate
        from cl_adapters.bundle.watching import Seen
        from cl_adapters.cli.counting import counted

    check_rate(reject)
    if out is not None:
        check_table_path(out)
    options = ReadOptions(
        image_column=image_column,
        label_column=label_column,
        max_pixels=pixels_of(max_megapixels),
    )
    pictures, left = find_pictures(paths, options, labelled=labels)
    _check_copies(copy_to, paths)
    learned = load(model, device=device, precision=precision, weights=weights)
    if labels:
        pictures = check_labels(learned, pictures)
    _say_what(learned, len(pictures), quiet=quiet)
    calibrate(model, learned, reject=reject, watch=watch, quiet=quiet)
    seen = Seen() if watch else None
    ask = partial(learned.answer, reject=reject, seen=seen)
    with counted("answering", len(pictures), quiet=quiet) as on_image:
        found = answer(
            learned, pictures, top=top, batch_size=batch_size, on_image=on_image, answer=ask
        )
    _hand_out(found, out, copy_to, labelled=labels, quiet=quiet)
    print_findings(found.table, learned, seen)
    _say_what_is_missing(found, left)
    if found.unreadable:
        raise typer.Exit(FAILED)


def _hand_out(
    found: "Prediction", out: Path | None, copy_to: Path | None, *, labelled: bool, quiet: bool
) -> None:
    """Writes, copies and prints the answers, as far as it was asked for."""
    from cl_adapters.benchmarks.prediction import Confusion, copy_by_class, write_table

    table = found.table if labelled else found.table.drop(columns="label", errors="ignore")
    if out is not None:
        write_table(table, out)
    if not quiet:
        _print_answers(table.assign(prediction=found.called), out)
    if labelled:
        _print_confusion(Confusion.of(table))
    if copy_to is not None:  # last: a full disk then loses no answer
        copy_by_class(found, copy_to)


def _check_copies(copy_to: Path | None, paths: list[Path]) -> None:
    from cl_adapters.errors import InputError

    if copy_to is None:
        return
    if copy_to.exists() and not copy_to.is_dir():
        raise InputError(f"`--copy-to` must be a folder, got the file {str(copy_to)!r}")
    for path in paths:
        if path.is_dir() and copy_to.resolve().is_relative_to(path.resolve()):
            raise InputError(
                f"`--copy-to` must lie outside of the images, got {str(copy_to)!r}, which lies in "
                f"{str(path)!r}"
            )


def _say_what(learned: "LearnedModel", images: int, *, quiet: bool) -> None:
    if quiet:
        return
    sheet = learned.sheet
    whole = sheet.run.get("experiences", len(sheet.learned))
    part = "" if whole == len(sheet.learned) else f" of {whole}"
    typer.echo(
        f"{sheet.strategy} with {len(learned.classes)} classes after {len(sheet.learned)}{part} "
        f"experiences, on {sheet.backbone['name']}; {images:,} image{'s' * (images != 1)}",
        err=True,
    )


def _print_answers(table: "pd.DataFrame", out: Path | None) -> None:
    from cl_adapters.cli.printing import print_table

    if out is None and len(table) <= _SHOWN:
        shown = table.copy()
        for name in shown.columns:
            if name.startswith("confidence"):
                shown[name] = shown[name].map("{:.1%}".format)
        if "score" in shown:
            shown["score"] = shown["score"].map(_rounded)
        headings = [name.replace("_", " ") for name in shown.columns]
        print_table([headings, *shown.astype(str).to_numpy().tolist()])
        return
    counts = table["prediction"].value_counts(sort=True)
    print_table([["class", "images"], *[[str(name), f"{n:,}"] for name, n in counts.items()]])
    where = f"every answer: {out}" if out is not None else "every answer: `--out answers.csv`"
    typer.echo(where)


def _rounded(score: float) -> str:
    return f"{float(f'{score:.3g}'):g}"  # three digits that count, 1230 rather than 1.23e+03


def _print_confusion(confusion: "Confusion") -> None:
    from cl_adapters.cli.printing import print_table

    rows = [
        [name, f"{images:,}", f"{right:.1f} %", mistaken]
        for name, images, right, mistaken in confusion.classes
    ]
    print_table([["class", "images", "right", "most often taken for"], *rows])
    images = sum(row[1] for row in confusion.classes)
    typer.echo(f"{confusion.accuracy:.2f} % of {images:,} images are right")


def _say_what_is_missing(found: "Prediction", left: "list[LeftOut]") -> None:
    from collections import Counter

    if left:
        reasons = Counter(each.reason for each in left).most_common()
        told = ", ".join(f"{reason}: {count:,}" for reason, count in reasons)
        files = f"{len(left):,} file{'s' * (len(left) != 1)}"
        typer.echo(f"{files} left out ({told})", err=True)
    bad = found.unreadable
    for each in bad[:_LISTED]:
        typer.echo(each.reason, err=True)
    if bad:
        more = f", of which {_LISTED} are named above" if len(bad) > _LISTED else ""
        images = f"{len(bad):,} image{'s' * (len(bad) != 1)}"
        typer.echo(f"{images} could not be read{more}", err=True)
