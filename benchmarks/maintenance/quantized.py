"""An ONNX file with weights of linear layers as 8-bit integers, by ONNX Runtime's own quantisation.

Weights are quantised once, by output channel; what enters a layer is quantised as it comes, so that
no images are needed for it. Convolutions, norms, softmaxes and classifiers in closed form stay as
they are. `export` does not offer it: SEMA on a ViT-Tiny loses four points
(`docs/guides/service.md`).
"""

import logging
from pathlib import Path

__all__ = ["quantize_file"]


def quantize_file(path: Path) -> None:
    """Quantises an ONNX file in place; its metadata say so."""
    import onnx  # noqa: PLC0415 - an extra of this package
    import onnxruntime  # noqa: PLC0415
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    # A transpose of weights that several layers share is computed first: the quantiser looks for
    # weights that enter a product as they are.
    folded = path.with_suffix(".folded.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises what has been done
    try:
        quantize_dynamic(
            folded,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
        folded.unlink()
    model = onnx.load(path)
    held = {each.key: each.value for each in model.metadata_props}
    held.pop("onnx.infer", None)
    onnx.helper.set_model_props(model, {**held, "quantized": "int8"})
    used = {node.domain for node in model.graph.node}
    kept = [each for each in model.opset_import if each.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.save(model, path)
