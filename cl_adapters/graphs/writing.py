"""A graph in a folder: the file, and what has to be done to an image before.

    model.onnx or model.pt2    from bytes to probabilities
    preprocess.json            from an image to bytes

It is written beside its place, compared with the model, and moved there when it answers the same.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import torch
from torch import Tensor
from torch.export import ExportedProgram

from cl_adapters import __version__
from cl_adapters.bundle.model import LearnedModel
from cl_adapters.errors import InputError, unknown_name
from cl_adapters.graphs.agreement import CLOSE, Agreement, agreement, require_agreement
from cl_adapters.graphs.described import pixels_described
from cl_adapters.graphs.fixed import GraphModel
from cl_adapters.graphs.onnx_file import check_onnx_installed, read_onnx_graph, write_onnx_graph
from cl_adapters.graphs.traced import Metadata, read_torch_graph, traced, write_torch_graph

__all__ = ["GRAPH_FORMATS", "GraphFormat", "check_request", "export_graph", "graph_metadata"]

GraphFormat = Literal["onnx", "torch-export"]
GRAPH_FORMATS: Final[tuple[GraphFormat, ...]] = get_args(GraphFormat)


@dataclass(frozen=True)
class _Format:
    file: str
    write: Callable[[ExportedProgram, Path, Metadata], None]
    read: Callable[[Path], tuple[Callable[[Tensor], Tensor], dict[str, str]]]


_FORMATS: Final[dict[GraphFormat, _Format]] = {
    "onnx": _Format("model.onnx", write_onnx_graph, read_onnx_graph),
    "torch-export": _Format("model.pt2", write_torch_graph, read_torch_graph),
}


def export_graph(
    model: LearnedModel,
    out: Path,
    kind: GraphFormat,
    images: Iterable[Tensor],
    *,
    tolerance: float = CLOSE,
) -> Agreement:
    """Writes a trained model as a fixed graph that runs without this package.

    Args:
        model: In fp32.
        out: The folder, which must not exist.
        kind: The format.
        images: What the file is compared with the model on, batches of what `model.prepared`
            gives, (B, 3, S, S): the run's test images.
        tolerance: Largest difference of a probability.

    Returns:
        How far file and model agree.

    Raises:
        InputError: If the format is unknown, a package is missing, the folder exists or cannot be
            written, the model computes in another precision, or its inference is no fixed graph.
        RunError: If the file does not answer as the model does; no file is left then.
    """
    check_request(out, kind)
    if not tolerance > 0:
        raise InputError(f"tolerance must be above 0, got {tolerance:g}")
    if model.sheet.precision != "fp32":
        raise InputError(
            f"a model must be loaded in fp32 to be a fixed graph, got {model.sheet.precision}"
        )
    pixels = model.preprocess.mean, model.preprocess.std
    labels = sorted({label for each in model.sheet.learned for label in each})
    graph = GraphModel(model.strategy, pixels, labels)
    program = traced(graph, model.preprocess.image_size)
    form, temporary = _FORMATS[kind], out.with_name(f".{out.name}.tmp")
    path = temporary / form.file
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed while it wrote
        temporary.mkdir(parents=True)
        form.write(program, path, graph_metadata(model))
        found = agreement(form.read(path)[0], _answered(model, images))
        require_agreement(found, form.file, tolerance)
        described = json.dumps(pixels_described(model.preprocess), indent=2)
        (temporary / "preprocess.json").write_text(described + "\n", "utf-8")
        temporary.rename(out)
    except OSError as error:
        raise InputError(f"folder {str(out)!r} must be writable, got: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return found


def graph_metadata(model: LearnedModel) -> dict[str, str]:
    """Returns what a file says of itself, texts and JSON by name."""
    return {
        "cl_adapters.graph_format": "1",
        "cl_adapters.version": __version__,
        "strategy": model.sheet.strategy,
        "classes": json.dumps(model.classes, ensure_ascii=False),
        "preprocess": json.dumps(pixels_described(model.preprocess)),
        "backbone": f"{model.sheet.backbone['name']}, digest {model.sheet.backbone['digest']}",
        "run": str(model.sheet.run.get("digest", "")),
    }


def check_request(out: Path, kind: str) -> None:
    """Refuses what can be refused before a model is loaded.

    Raises:
        InputError: If the format is unknown, a package is missing or the folder exists.
    """
    if kind not in GRAPH_FORMATS:
        raise unknown_name("format", kind, GRAPH_FORMATS)
    if kind == "onnx":
        check_onnx_installed()
    if out.exists():
        raise InputError(f"export {str(out)!r} must be a new folder, got one that exists")


def _answered(model: LearnedModel, images: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in images:
        yield batch, torch.from_numpy(model.answer(batch).probabilities)
