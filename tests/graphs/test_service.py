"""The example of a server answers photos, and refuses what is none."""

import importlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from fastapi.testclient import TestClient
from onnx import TensorProto, helper
from PIL import Image

from cl_adapters.graphs.described import pixels_described
from cl_adapters.graphs.onnx_file import OPSET
from cl_adapters.images.transforms import Preprocess

FOLDER = Path(__file__).parent.parent.parent / "examples" / "service"


def write_model(folder: Path) -> None:
    """Writes a model that answers with the colours' shares: red, green, blue."""
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers", "sides"], ["sums"], keepdims=0),
        helper.make_node("ReduceSum", ["sums", "colours"], ["whole"], keepdims=1),
        helper.make_node("Div", ["sums", "whole"], ["probabilities"]),
    ]
    sides = helper.make_tensor("sides", TensorProto.INT64, [2], [2, 3])
    colours = helper.make_tensor("colours", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
        [sides, colours],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    helper.set_model_props(model, {"classes": json.dumps(["red", "green", "blue"])})
    onnx.save(model, folder / "model.onnx")
    rule = pixels_described(Preprocess(image_size=8, mean=(0.5,) * 3, std=(0.5,) * 3))
    (folder / "preprocess.json").write_text(json.dumps(rule))


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    write_model(tmp_path)
    monkeypatch.setenv("MODEL", str(tmp_path))
    monkeypatch.syspath_prepend(FOLDER)
    yield TestClient(importlib.import_module("app").app)
    for name in ("app", "pixels"):
        del sys.modules[name]


def photo(colour: tuple[int, int, int]) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (31, 20), colour).save(file, "PNG")
    return {"photo": ("photo.png", file.getvalue(), "image/png")}


def test_a_photo_is_answered_best_first(client: Any) -> None:
    answer = client.post("/predict", files=photo((20, 0, 60)))
    assert answer.status_code == 200
    assert answer.json() == [
        ["blue", pytest.approx(0.75)],
        ["red", pytest.approx(0.25)],
        ["green", 0],
    ]
    first = client.post("/predict?top=1", files=photo((0, 60, 20))).json()
    assert first == [["green", pytest.approx(0.75)]]


def test_what_is_no_photo_is_refused(client: Any) -> None:
    answer = client.post("/predict", files={"photo": ("a.txt", b"no photo", "text/plain")})
    assert answer.status_code == 422
    assert "photo must be an image" in answer.json()["detail"]
    assert client.post("/predict").status_code == 422
    assert client.post("/predict?top=0", files=photo((1, 1, 1))).status_code == 422


def test_the_server_is_thirty_lines() -> None:
    assert len((FOLDER / "app.py").read_text().splitlines()) <= 30
