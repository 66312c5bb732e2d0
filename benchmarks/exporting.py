"""Exports a trained model as a fixed graph, compared with it on the run's own test images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from cl_adapters.benchmarks.data.pictures import find_pictures
from cl_adapters.benchmarks.running.opening import open_images
from cl_adapters.benchmarks.running.parent import noted_parent
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.bundle.files import load, model_folder
from cl_adapters.bundle.model import BATCH, LearnedModel
from cl_adapters.errors import InputError, unknown_name
from cl_adapters.graphs.agreement import CLOSE, Agreement
from cl_adapters.graphs.writing import (
    GRAPH_FORMATS,
    GraphFormat,
    check_request,
    export_graph,
)
from cl_adapters.images.decoding import Pixels
from cl_adapters.paths import user_path
from cl_adapters.records.run_record import RunRecord

__all__ = ["COMPARED", "export_model_graph", "graph_format", "images_to_compare"]

COMPARED: Final = 1000  # images at most, spread over all of them


def graph_format(name: str) -> GraphFormat:
    """Returns the format of a name.

    Raises:
        InputError: If no graph has it.
    """
    for each in GRAPH_FORMATS:
        if each == name:
            return each
    raise unknown_name("format", name, ["bundle", *GRAPH_FORMATS])


def export_model_graph(
    model: Path,
    out: Path,
    kind: GraphFormat,
    *,
    check: Sequence[Path] = (),
    weights: str | Path | None = None,
    tolerance: float = CLOSE,
) -> Agreement:
    """Loads a trained model and writes it as a fixed graph.

    Args:
        model: A run directory, at its last finished experience, a folder with one run, or a bundle.
        out: The folder to write, which must not exist.
        kind: The format.
        check: Images, folders and parquet files to compare file and model on; none takes the test
            images of the run. Of many, `COMPARED` are taken.
        weights: File of the frozen backbone where it no longer is where the run had it.
        tolerance: Largest difference of a probability.

    Returns:
        How far file and model agree.

    Raises:
        InputError: If the model cannot be loaded, its images cannot be found, or `export_graph`
            refuses it.
        RunError: If the file does not answer as the model does; none is left then.
    """
    out = user_path(out)
    check_request(out, kind)
    source = model_folder(user_path(model))
    images = _pictures(check) if check else images_to_compare(source)
    learned = load(source, precision="fp32", weights=weights)
    inputs = _batches(learned, images)
    return export_graph(learned, out, kind, inputs, tolerance=tolerance)


def images_to_compare(folder: Path, most: int = COMPARED) -> Sequence[Pixels]:
    """Returns test images of a run, (H, W, 3) uint8, spread evenly over all that its stream has.

    Args:
        folder: The run directory.
        most: How many, at most.

    Raises:
        InputError: If the folder is none, or the images are no longer where the run had them.
    """
    if not (folder / "run.json").exists():
        raise InputError(
            f"model {str(folder)!r} must be compared with its file on images, and a bundle has "
            "none: `--check PHOTOS` names some"
        )
    try:
        config = RunConfig.model_validate(RunRecord.read(folder).config)
        test = open_images(config, noted_parent(folder)).test
    except InputError as error:
        raise InputError(f"{error}; `--check PHOTOS` names other images") from error
    return [test.read(index) for index in _spread(len(test), most)]


def _pictures(check: Sequence[Path]) -> Sequence[Pixels]:
    pictures, _ = find_pictures(check)
    return [pictures[index].pixels() for index in _spread(len(pictures), COMPARED)]


def _spread(count: int, most: int) -> list[int]:
    chosen = np.linspace(0, count - 1, min(count, most))
    return [int(index) for index in chosen.round()]


def _batches(model: LearnedModel, images: Sequence[Pixels]) -> Iterator[Tensor]:
    for start in range(0, len(images), BATCH):
        yield torch.stack([model.prepared(each) for each in images[start : start + BATCH]])
