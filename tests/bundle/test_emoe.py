"""A run over a backbone with experts says so, and its model answers elsewhere as it does there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import cl_adapters as cla
from cl_adapters.benchmarks.data.pictures import find_pictures
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.bundle.files import load
from cl_adapters.errors import InputError
from tests.bundle.runs import config, learn, write_pictures


def test_experts_are_recorded(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", each=6)
    records = [
        prepare(config(data, "simplecil", **given)).record for given in ({"emoe": "4,2,0"}, {})
    ]
    assert records[0].config["emoe"] == "4,2,0"
    assert "emoe" not in records[1].config
    assert records[0].fingerprint["weights"] != records[1].fingerprint["weights"]


@pytest.mark.slow
def test_experts_go_with_the_model(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", each=6)
    _, folder = learn(data, tmp_path / "run", "simplecil", emoe="4,2,0,3")
    _, plain = learn(data, tmp_path / "plain", "simplecil")
    assert json.loads((folder / "run.json").read_text())["config"]["emoe"] == "4,2,0,3"
    bundle = cla.export(folder, tmp_path / "bundle", with_backbone=True)
    paths = sorted(data.rglob("*.png"))[:4]
    found = [load(each).predict(paths).probabilities for each in (folder, bundle, plain)]
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).any()
    graph = cla.export(folder, tmp_path / "onnx", format="onnx")
    session: Any = onnxruntime.InferenceSession(str(graph / "model.onnx"))
    learned = load(folder)
    pixels = [each.pixels() for each in find_pictures(paths)[0]]
    images = torch.stack([learned.prepared(each) for each in pixels])
    (answers,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(answers, found[0], atol=1e-5)
    assert np.abs(answers - found[2]).max() > 1e-3


def test_text_that_says_no_experts_is_refused_before_images_are_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`emoe` must be the number of experts, .* got 'many'"):
        prepare(config(tmp_path / "nowhere", "simplecil", emoe="many"))
