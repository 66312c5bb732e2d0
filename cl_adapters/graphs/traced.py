"""A model as torch.export traces it: the graph that both formats are written from."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from cl_adapters.errors import InputError
from cl_adapters.graphs.fixed import GraphModel

__all__ = ["METADATA", "Metadata", "read_torch_graph", "traced", "write_torch_graph"]

Metadata = Mapping[str, str]
METADATA: Final = "metadata.json"  # beside the graph in a `.pt2`


def traced(model: GraphModel, size: int) -> ExportedProgram:
    """Returns a model as a graph with any number of images a batch.

    Args:
        model: On the CPU.
        size: S, side of an image in pixels.

    Raises:
        InputError: If it branches on what it computes, so that it is no graph.
    """
    images = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    with torch.no_grad(), _quiet():
        try:
            program = torch.export.export(
                model, (images,), dynamic_shapes={"images": {0: Dim("batch")}}, strict=False
            )
        except Exception as error:  # whatever torch's tracer or a stranger's model raises
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                "a model must answer without branches on its images to be a fixed graph, and "
                f"{type(model.answer).__name__} cannot be traced: {reason}"
            ) from error
    for part in program.graph_module.modules():  # what stands in a context is a graph of its own
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            node.meta.pop("stack_trace", None)  # lines of files of the machine that made it
    return program


def write_torch_graph(program: ExportedProgram, path: Path, metadata: Metadata) -> None:
    """Writes a `.pt2` with the metadata as one JSON file in it."""
    with _quiet():
        torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata)})


def read_torch_graph(path: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, str]]:
    """Returns what a `.pt2` computes, from images (B, 3, S, S) uint8 to probabilities (B, C).

    Returns:
        The function, and the metadata.
    """
    files = {METADATA: ""}
    with _quiet():
        program = torch.export.load(path, extra_files=files)
    return program.module(), json.loads(files[METADATA])


@contextmanager
def _quiet() -> Iterator[None]:
    # What torch says to its own authors.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
