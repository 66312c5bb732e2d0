"""Exported graphs beside their models, for the guide to services.

    python -m cl_adapters.benchmarks.maintenance.graph_speed RUN…

For each run directory the ONNX file is written, and model and file answer the same images in turns,
one image at a time and 32, in processor time on one thread. A ratio is the median over pairs, so
that a machine that slows down meanwhile does not decide.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from torch import Tensor

from cl_adapters.benchmarks.exporting import export_model_graph, images_to_compare
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
        graph: Those of the file.
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
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "graph"
        export_model_graph(run, out, "onnx")
        size = (out / "model.onnx").stat().st_size
        graph, _ = read_onnx_graph(out / "model.onnx", threads=1)
        model = load(run, precision="fp32")
        images = _inputs(model, run)
        found = [pace(model.strategy.answer, graph, images[:batch]) for batch in BATCHES]
    cells = [f"{size / 10**6:.1f} of {_size(model) / 10**6:.1f}"]
    for each in found:
        cells += [f"{1000 * each.native:.1f}", f"{1000 * each.graph:.1f}", f"{each.ratio:.2f}"]
    return [model.sheet.strategy, *cells]


def _inputs(model: LearnedModel, run: Path) -> Tensor:
    return torch.stack([model.prepared(each) for each in images_to_compare(run, max(BATCHES))])


def _size(model: LearnedModel) -> int:
    states = (model.strategy.learned_state(), model.strategy.backbone.state_dict())
    return sum(value.nbytes for state in states for value in state.values())


def main(runs: Annotated[list[Path], typer.Argument(help="Run directories.")]) -> None:
    """Prints the table of the docs."""
    torch.set_num_threads(1)
    head: Sequence[str] = ["method", "MB, file of model"]
    for batch in BATCHES:
        head = [*head, f"ms for {batch}: model", "file", "ratio"]
    typer.echo(markdown_table([head, *map(_row, runs)]), nl=False)


if __name__ == "__main__":
    typer.run(main)
