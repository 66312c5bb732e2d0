"""Exported graphs beside their models, for the guide to services.

    python -m cl_adapters.benchmarks.maintenance.graph_speed RUN…

For each run directory the ONNX file is written and quantised. Model and file answer the same images
in turns, one image at a time and 32, in processor time on one thread. A ratio, of the file over the
model, is the median over pairs, so that a machine that slows down meanwhile does not decide.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from torch import Tensor

from cl_adapters.benchmarks.exporting import export_model_graph, images_to_compare
from cl_adapters.benchmarks.maintenance.quantized import quantize_file
from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.bundle.files import load
from cl_adapters.bundle.model import LearnedModel
from cl_adapters.graphs.onnx_file import read_onnx_graph

__all__ = ["Pace", "pace"]

BATCHES: Final = (1, 32)
_PAIRS: Final = {1: 30, 32: 5}


@dataclass(frozen=True)
class Pace:
    """How fast a model and its file answer one batch.

    Attributes:
        batch: Images in it.
        native: Processor seconds of the model, the least.
        graph: The same of the file.
        ratio: Those of the file over those of the model, the median over pairs.
    """

    batch: int
    native: float
    graph: float
    ratio: float


def pace(
    native: Callable[[Tensor], object], graph: Callable[[Tensor], object], images: Tensor
) -> Pace:
    """Times two ways to answer a batch in turns, after one of each that is not counted.

    Args:
        native: The model.
        graph: The file.
        images: The batch, (B, 3, S, S) uint8.
    """
    count = _PAIRS.get(len(images), 5)
    pairs = [(_seconds(native, images), _seconds(graph, images)) for _ in range(count + 1)]
    kept = pairs[1:]
    return Pace(
        len(images),
        min(first for first, _ in kept),
        min(second for _, second in kept),
        statistics.median(second / first for first, second in kept),
    )


def _seconds(function: Callable[[Tensor], object], images: Tensor) -> float:
    start = time.process_time()
    function(images)
    return time.process_time() - start


def _row(run: Path) -> list[str]:
    model = load(run, precision="fp32")
    images = _inputs(model, run)
    with tempfile.TemporaryDirectory() as folder:
        export_model_graph(run, Path(folder) / "graph", "onnx", tolerance=1e-3)
        plain = Path(folder) / "graph" / "model.onnx"
        small = plain.with_name("int8.onnx")
        shutil.copy(plain, small)
        quantize_file(small)
        sizes = [_size(model), plain.stat().st_size, small.stat().st_size]
        cells = [model.sheet.strategy, " / ".join(f"{each / 10**6:.1f}" for each in sizes)]
        graphs = [read_onnx_graph(path, threads=1)[0] for path in (plain, small)]
        for batch in BATCHES:
            found = [pace(model.strategy.answer, graph, images[:batch]) for graph in graphs]
            cells += [f"{1000 * found[0].native:.1f}", *(f"{each.ratio:.2f}" for each in found)]
    return cells


def _inputs(model: LearnedModel, run: Path) -> Tensor:
    return torch.stack([model.prepared(each) for each in images_to_compare(run, max(BATCHES))])


def _size(model: LearnedModel) -> int:
    states = (model.strategy.learned_state(), model.strategy.backbone.state_dict())
    return sum(value.nbytes for state in states for value in state.values())


def main(runs: Annotated[list[Path], typer.Argument(help="Run directories.")]) -> None:
    """Prints the table of the docs."""
    torch.set_num_threads(1)
    head = ["method", "MB: model / ONNX / int8"]
    for batch in BATCHES:
        head += [f"batch {batch}: model, ms", "ONNX, ratio", "int8, ratio"]
    typer.echo(markdown_table([head, *map(_row, runs)]), nl=False)


if __name__ == "__main__":
    typer.run(main)
