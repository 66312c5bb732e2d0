"""A graph as an ONNX file, and what ONNX Runtime makes of it."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.export import ExportedProgram

from cl_adapters.errors import InputError
from cl_adapters.graphs.traced import Metadata

__all__ = ["OPSET", "check_onnx_installed", "read_onnx_graph", "write_onnx_graph"]

OPSET: Final = 20  # of ONNX 1.15, which ONNX Runtime runs since 1.17
_NEEDED: Final = ("onnx", "onnxscript", "onnxruntime")


def check_onnx_installed() -> None:
    """Says what is missing before anything is computed.

    Raises:
        InputError: If a package is missing.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(
            "ONNX files must be written with the packages of `pip install 'cl-adapters[onnx]'`, "
            f"missing: {', '.join(missing)}"
        )


def write_onnx_graph(program: ExportedProgram, path: Path, metadata: Metadata) -> None:
    """Writes an ONNX file with the weights in it: input `images`, output `probabilities`.

    Args:
        program: What `traced` returned.
        path: The file.
        metadata: The file's `metadata_props`.

    Raises:
        InputError: If this torch cannot write it.
    """
    size = program.example_inputs[0][0].shape if program.example_inputs else (2, 3, 1, 1)
    with _quiet():
        try:
            written: Any = torch.onnx.export(
                program,
                (torch.zeros(size, dtype=torch.uint8),),
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["probabilities"],
                dynamic_shapes={"images": {0: "batch"}},
                verbose=False,
            )
        except Exception as error:  # whatever an exporter says of an operation that it lacks
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"torch must write the graph in opset {OPSET}, as 2.15 does, but "
                f"{torch.__version__} says: {reason}"
            ) from error
    model = written.model
    _strip(model)
    model.metadata_props.update(metadata)
    written.save(path)


def _strip(model: Any) -> None:  # noqa: ANN401 - onnx-ir's model; its types are not ours to need
    """Removes what the exporter notes for its authors: half of a small file, and our paths."""
    graph = model.graph
    parts = [*graph, *graph.inputs, *graph.outputs, *graph.initializers.values()]
    parts += [value for node in graph for value in node.outputs]
    for part in (model, graph, *parts):
        part.metadata_props.clear()


def read_onnx_graph(
    path: Path, threads: int = 0
) -> tuple[Callable[[Tensor], Tensor], dict[str, str]]:
    """Returns what ONNX Runtime computes on the CPU, from images uint8 to probabilities.

    Args:
        path: The file.
        threads: How many may compute; 0 for ONNX Runtime's choice.

    Returns:
        The function, and the metadata.
    """
    import onnxruntime  # noqa: PLC0415 - an extra of this package

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])

    def answer(images: Tensor) -> Tensor:
        (found,) = session.run(None, {"images": images.numpy()})
        return torch.from_numpy(found)

    return answer, dict(session.get_modelmeta().custom_metadata_map)


@contextmanager
def _quiet() -> Iterator[None]:
    # What the exporter says to its own authors.
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
