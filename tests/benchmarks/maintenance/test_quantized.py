"""What is measured as int8 has its weights in 8 bits, shared ones too."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from cl_adapters.benchmarks.maintenance.quantized import quantize_file
from cl_adapters.graphs.agreement import agreement
from cl_adapters.graphs.onnx_file import read_onnx_graph
from cl_adapters.graphs.writing import export_graph
from tests.graphs.learned import images, learned
from tests.graphs.test_fixed import expected


@pytest.mark.slow
def test_weights_become_integers(tmp_path: Path) -> None:
    model = learned("lae", depth=1)  # whose experts share the network's weights
    export_graph(model, tmp_path / "out", "onnx", [images(8)])
    path = tmp_path / "int8.onnx"
    shutil.copy(tmp_path / "out" / "model.onnx", path)
    quantize_file(path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["int8.onnx", "out"]
    written = onnx.load(path)
    onnx.checker.check_model(written)
    assert {each.domain for each in written.opset_import} == {""}
    large = {each.data_type for each in written.graph.initializer if np.prod(each.dims) > 2000}
    assert large == {TensorProto.INT8}
    answer, metadata = read_onnx_graph(path)
    assert metadata["quantized"] == "int8"
    found = agreement(answer, [(images(40), expected(model, images(40)))])
    assert found.same_top >= 0.9
    assert 1e-7 < found.worst < 0.1
