"""`import cl_adapters as cla`: runs, what they found, and what they learned, in one call each."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cl_adapters.benchmarks.api import continue_run as continue_one
from cl_adapters.benchmarks.api import run as run_all
from cl_adapters.benchmarks.calibration import calibrate
from cl_adapters.benchmarks.exporting import export_model_graph, graph_format
from cl_adapters.bundle.files import load, model_folder, read_learned_model, write_bundle
from cl_adapters.bundle.model import LearnedModel
from cl_adapters.bundle.sheet import Sheet
from cl_adapters.errors import InputError
from cl_adapters.paths import user_path
from cl_adapters.records.files import read_file
from cl_adapters.reports.card import CURVE, METRICS, UNTESTED, card, curve_picture, measured_so_far
from cl_adapters.reports.load import Run
from cl_adapters.reports.runs import Runs, load_runs
from cl_adapters.reports.tested import untested_classes
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.pretrained import license_of

__all__ = ["calibrate", "continue_run", "export", "load", "run"]


def continue_run(
    run: str | Path,
    data: str | Path,
    *,
    out: str | Path = "runs",
    quiet: bool = True,
    cache: str | Path | None = None,
    weights: str | Path | None = None,
    **part: object,
) -> Runs:
    """Learns further images on top of what a run has learned, and returns what was found.

    `cl-adapters continue` from Python. The run itself stays as it is; the new one begins with its
    curves and its last checkpoint, and ends as one long run over the images of both would. One that
    was stopped goes on, and a finished one is not repeated.

    Args:
        run: Run directory of a finished run, or a folder with one run in it.
        data: The images to learn: new classes, or more images of old ones; a folder or a table.
        out: Folder of all runs.
        quiet: Show no progress.
        cache: Folder for what frozen parts compute, or `off`; None takes the user's cache.
        weights: File of the frozen backbone where it no longer is where the run had it.
        **part: `increment`, new classes an experience (by default all at once); `old_test`, class
            folders with test images of what was learned before, or `none` (by default those that
            the run was evaluated on, if they are still there); and how the images are read:
            `class_depth`, `domain_folders`, `image_column`, `label_column`, `max_megapixels`,
            `test_set`.

    Returns:
        The new run, whatever else `out` holds; its `folder` can be continued in turn.

    Raises:
        InputError: If the run cannot be continued, or anything named is missing or does not fit.
        RunError: If the new run cannot go on.
    """
    folder = continue_one(run, data, out=out, quiet=quiet, cache=cache, weights=weights, **part)
    return load_runs([folder])


def run(
    strategy: str | type[AdapterStrategy] | Sequence[str | type[AdapterStrategy]],
    *,
    seeds: int = 1,
    out: str | Path = "runs",
    options: Mapping[str, object] | None = None,
    quiet: bool = True,
    cache: str | Path | None = None,
    **recipe: object,
) -> Runs:
    """Runs strategies on a stream, records everything and returns what was found.

    `cl-adapters run` from Python, with the same names of options: `--image-size 16` is
    `image_size=16`. A finished run is not repeated, and one that was stopped continues.

    Args:
        strategy: Names or classes, one or several. A class stands at the top level of a file, whose
            checksum goes into the record; a script that calls `run` does so under
            `if __name__ == "__main__":`.
        seeds: Number of seeds, from 0 or the recipe's `seed` on.
        out: Folder of all runs.
        options: Options of the strategies; `strategy.option` sets it for one of them.
        quiet: Show no progress.
        cache: Folder for what frozen parts compute, or `off`; None takes the user's cache.
        **recipe: Any key of a recipe, such as `stream="digits"`, `data="photos"` or `increment=5`.

    Returns:
        The runs that were asked for, whatever else `out` holds.

    Raises:
        InputError: If anything named is unknown, missing, broken or does not fit.
        RunError: If a run cannot go on.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     runs = run("simplecil", increment=5, image_size=16, out=folder)
        >>> runs.table("a_last_micro")["method"].tolist(), runs[0].record.state
        (['simplecil'], 'finished')
    """
    folders = run_all(
        strategy, seeds=seeds, out=out, options=options, quiet=quiet, cache=cache, **recipe
    )
    return load_runs(folders)


def export(  # noqa: PLR0913 - each is an option of the command
    model: str | Path,
    out: str | Path,
    *,
    format: str = "bundle",  # noqa: A002 - as the command has it
    with_backbone: bool = False,
    rejection: bool | None = None,
    weights: str | Path | None = None,
    check: str | Path | Sequence[str | Path] = (),
    tolerance: float = 1e-4,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Writes a trained model to be used elsewhere; returns where it is.

    The model is loaded first, so that nothing is written that could not be used.

    Args:
        model: A run directory, at its last finished experience, or a bundle.
        out: The folder, which must not exist.
        format: `bundle`, with a card; or a fixed graph that runs without this package, `onnx` or
            `torch-export`.
        with_backbone: Take the frozen backbone's weights along; a graph always does.
        rejection: Take along in a bundle what `reject` and `watch` need, which the run's training
            images tell; None takes it where these are there.
        weights: File of the frozen backbone where it no longer is where the run had it.
        check: Images, folders or parquet files on which a graph is compared with the model; by
            default the run's test images.
        tolerance: Largest difference of a probability between a graph and the model.
        say: Told, in a sentence, why what `reject` needs is missing.

    Raises:
        InputError: If the model cannot be loaded or calibrated, the folder exists or cannot be
            written, or the model is no fixed graph.
        RunError: If a graph does not answer as the model does; none is left then.
    """
    if format != "bundle":
        photos = [check] if isinstance(check, str | Path) else check
        kind = graph_format(format)
        paths = [Path(each) for each in photos]
        export_model_graph(
            Path(model),
            Path(out),
            kind,
            check=paths,
            weights=weights,
            tolerance=tolerance,
        )
        return user_path(out)
    source, place = model_folder(user_path(model)), user_path(out)
    if place.exists():
        raise InputError(f"bundle {str(place)!r} must be a new folder, got one that exists")
    learned = load(source, weights=weights)
    sheet, run = learned.sheet, None
    if (source / "run.json").exists():
        run = measured_so_far(source)
        left = untested_classes(run)
        extras = {**sheet.extras, **({UNTESTED: left} if left else {})}
        sheet = replace(sheet, metrics=_metrics(run), extras=extras)
    name = sheet.backbone["name"]
    given = sheet.backbone.get("weights")
    known = sheet.backbone.get("license") or (license_of(name) if given is None else None)
    sheet = replace(sheet, backbone={**sheet.backbone, "license": known})
    vit = learned.strategy.backbone.vit
    if rejection is not False:
        _calibrate(source, learned, say=None if rejection else say)
    write_bundle(
        place,
        sheet,
        read_learned_model(source).state,
        backbone=vit.state_dict() if with_backbone else None,
        calibration=None if rejection is False else learned.calibration,
        others=_card_files(sheet, run, source),
    )
    return place


def _calibrate(source: Path, learned: LearnedModel, say: Callable[[str], None] | None) -> None:
    if learned.calibration is not None:
        return
    if not (source / "run.json").exists():
        error = InputError(f"bundle {str(source)!r} must hold a calibration to pass on, got none")
        if say is None:
            raise error
        return
    try:
        calibrate(source, learned)
    except InputError as error:
        if say is None:
            raise
        say(f"the bundle knows no unknown images and no shifts: {error}")


def _card_files(sheet: Sheet, run: Run | None, source: Path) -> dict[str, bytes]:
    if run is not None:
        return {"README.md": card(sheet, run).encode(), CURVE: curve_picture(run)}
    # Of a bundle: what was measured is known to its card alone.
    files = {name: read_file(source / name) for name in ("README.md", CURVE)}
    held = {name: data for name, data in files.items() if data is not None}
    return held or {"README.md": card(sheet, None).encode()}


def _metrics(run: Run) -> dict[str, float]:
    values = {name: run.values.get(name, math.nan) for name, *_ in METRICS}
    return {name: value for name, value in values.items() if not math.isnan(value)}
