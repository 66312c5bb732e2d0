"""What an exported file holds and answers, and that there is none where it would answer otherwise."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from cl_adapters.errors import InputError, RunError
from cl_adapters.graphs import onnx_file
from cl_adapters.graphs.agreement import Agreement, agreement, require_agreement
from cl_adapters.graphs.onnx_file import OPSET
from cl_adapters.graphs.writing import export_graph
from cl_adapters.strategies.simplecil import PrototypeClassifier, SimpleCIL
from tests.graphs.learned import SIZE, images, learned, model_of
from tests.graphs.test_fixed import CASES, WrongGraph, expected
from tests.marks import by_default

# A classifier of means, and a grown model that chooses its adapters:
# test_fixed.py compares the graphs of the others before they are written.
SHOWN = [
    CASES.index(each)
    for each in (
        ("simplecil", {}),
        ("sema", {"watch": "slots", "router": "learned", "head": "linear"}),
    )
]
# Two kinds of blocks.
DEPTH = {"cl_lora": 2, "dualprompt": 2}


def session_of(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Exports a model once; a network of one block, since tracing takes seconds."""

    @cache
    def export(index: int) -> tuple[Any, Path, Agreement]:
        name, options = CASES[index]
        model = learned(name, depth=DEPTH.get(name, 1), **options)
        out = tmp_path_factory.mktemp("graph") / "out"
        return model, out, export_graph(model, out, "onnx", [images(8), images(3, seed=1)])

    return export


@pytest.mark.parametrize("case", by_default(range(len(CASES)), SHOWN))
def test_onnx_runtime_answers_as_the_model(exported: Any, case: int) -> None:
    model, out, found = exported(case)
    assert (found.images, found.same_top) == (11, 1.0)
    assert found.worst < 1e-4
    session = session_of(out / "model.onnx")
    for count in (1, 5):  # any batch, other images than those that were compared
        batch = images(count, seed=2)
        (answers,) = session.run(None, {"images": batch.numpy()})
        assert answers.dtype == np.float32
        np.testing.assert_allclose(answers, expected(model, batch), atol=1e-5)


def test_a_file_says_what_it_is(exported: Any) -> None:
    _, out, _ = exported(0)
    path = out / "model.onnx"
    assert sorted(each.name for each in out.iterdir()) == ["model.onnx", "preprocess.json"]
    assert [each.name for each in out.parent.iterdir()] == ["out"]
    session = session_of(path)
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == (
        "images", "tensor(uint8)", ["batch", 3, SIZE, SIZE],
    )  # fmt: skip
    assert (made.name, made.type, made.shape) == (
        "probabilities", "tensor(float)", ["batch", 4],
    )  # fmt: skip
    held = session.get_modelmeta().custom_metadata_map
    assert json.loads(held["classes"]) == ["stop", "yield", "vorfahrt", "grün"]
    assert held["strategy"] == "simplecil"
    described = json.loads((out / "preprocess.json").read_text())
    assert json.loads(held["preprocess"]) == described
    assert (described["short_side"], described["filter"]) == (SIZE, "bicubic")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    assert b"/cl_adapters/" not in path.read_bytes()  # no lines of the machine that wrote it


def test_a_torch_file_answers_as_the_model(tmp_path: Path) -> None:
    model = learned("simplecil", depth=1)
    export_graph(model, tmp_path / "out", "torch-export", [images(8)])
    path = tmp_path / "out" / "model.pt2"
    extra = {"metadata.json": ""}
    program = torch.export.load(path, extra_files=extra)
    batch = images(5, seed=2)
    found = program.module()(batch)
    torch.testing.assert_close(found.double(), expected(model, batch), atol=1e-5, rtol=0)
    assert json.loads(json.loads(extra["metadata.json"])["classes"])[3] == "grün"
    assert b"/cl_adapters/" not in path.read_bytes()


@pytest.mark.parametrize("kind", ["torch-export", pytest.param("onnx", marks=pytest.mark.slow)])
def test_a_file_that_answers_otherwise_is_not_written(tmp_path: Path, kind: Any) -> None:
    model = model_of(WrongGraph, "wrong", ((0, 1),), 1)
    with pytest.raises(RunError, match=r"must answer as the model does.*on 6 images: no file"):
        export_graph(model, tmp_path / "out", kind, [images(6)])
    assert list(tmp_path.iterdir()) == []


class _Branching(PrototypeClassifier):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs if float(inputs.sum()) > 0 else -inputs)


class Branching(SimpleCIL):
    """Looks at its images before it answers."""

    @classmethod
    def build_model(cls, backbone: Any, config: Any, seed: int) -> _Branching:
        return _Branching(backbone, config.build_head(backbone.embed_dim, config.cosine_scale))


def test_a_model_that_branches_is_no_graph(tmp_path: Path) -> None:
    model = model_of(Branching, "branching", ((0, 1),), 1)
    with pytest.raises(
        InputError, match="without branches on its images.*_Branching cannot be traced"
    ):
        export_graph(model, tmp_path / "out", "torch-export", [images(2)])
    assert list(tmp_path.iterdir()) == []


def test_bad_requests_are_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = learned("simplecil", depth=1)
    with pytest.raises(InputError, match="unknown format 'onix'; did you mean 'onnx'"):
        export_graph(model, tmp_path / "out", "onix", [])  # type: ignore[arg-type]
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="must be a new folder, got one that exists"):
        export_graph(model, tmp_path / "there", "onnx", [])
    with pytest.raises(RunError, match="on 0 images"):
        export_graph(model, tmp_path / "out", "torch-export", [])
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(InputError, match=r"cl-adapters\[onnx\]'`, missing: onnxscript"):
        export_graph(model, tmp_path / "out", "onnx", [])
    assert [each.name for each in tmp_path.iterdir()] == ["there"]


def test_agreement_counts_classes_and_the_worst_probability() -> None:
    def answer(batch: Tensor) -> Tensor:
        return batch

    first = torch.tensor([[0.6, 0.4], [0.1, 0.9]]), torch.tensor([[0.6, 0.4], [0.3, 0.7]])
    second = torch.tensor([[0.2, 0.8]]), torch.tensor([[0.5, 0.5]])
    found = agreement(answer, [first, second])
    assert (found.images, found.same_top) == (3, pytest.approx(2 / 3))
    assert found.worst == pytest.approx(0.3)
    with pytest.raises(
        RunError, match=r"within 0.0001 \(`tolerance`\), got 66.67% and 0.3 on 3 im"
    ):
        require_agreement(found, "model.onnx")
    require_agreement(Agreement(1000, 0.999, 2e-4), "model.onnx", 3e-4)
    with pytest.raises(RunError, match="got 99.90% and 0.0002"):
        require_agreement(Agreement(1000, 0.999, 2e-4), "model.onnx")
    lost = agreement(answer, [(torch.tensor([[torch.nan, 1.0]]), torch.tensor([[0.0, 1.0]]))])
    assert lost.worst == float("inf")
    with pytest.raises(RunError, match="and inf on 1 images"):
        require_agreement(lost, "model.onnx", 1e9)


def test_a_torch_that_cannot_write_the_graph_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks(*_: Any, **__: Any) -> None:
        raise NotImplementedError("no opset 20\nand more")

    monkeypatch.setattr(torch.onnx, "export", lacks)
    with pytest.raises(InputError, match=r"in opset 20, as 2.15 does, but .* says: no opset 20$"):
        export_graph(learned("simplecil", depth=1), tmp_path / "out", "onnx", [images(2)])
    assert list(tmp_path.iterdir()) == []
