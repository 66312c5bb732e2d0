"""`cl-adapters export --format torch-export` from outside: what is compared, and bad input."""

from pathlib import Path

import pytest
import torch

import cl_adapters as cla
from cl_adapters.benchmarks.exporting import images_to_compare
from tests.bundle.runs import learn, write_pictures
from tests.cli.test_cli import call


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of SimpleCIL on four classes of twelve images each."""
    root = tmp_path_factory.mktemp("export")
    _, folder = learn(write_pictures(root / "pictures"), root / "runs", "simplecil")
    folder.rename(root / "run")
    return root


def export(root: Path, out: Path, *arguments: str) -> tuple[int, str]:
    return call("export", str(root / "run"), "--out", str(out), "--format", *arguments)


def test_a_run_becomes_a_graph_that_is_compared_on_its_test_images(
    root: Path, tmp_path: Path
) -> None:
    code, text = export(root, tmp_path / "out", "torch-export")
    assert code == 0, text
    tested = len(images_to_compare(root / "run", 1000))
    assert 0 < tested < 48
    assert f"checked: the model's class for {tested} of {tested} images" in text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "model.pt2",
        "preprocess.json",
    ]
    model = cla.load(root / "run")
    photos = sorted((root / "pictures").rglob("*.png"))[::5]
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    found = program(torch.stack([model.prepared(path) for path in photos]))
    expected = torch.from_numpy(model.predict(photos).probabilities)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_images_to_compare_are_spread_over_all(root: Path) -> None:
    every, some = (images_to_compare(root / "run", most) for most in (1000, 3))
    assert len(some) == 3
    assert all(
        (a == b).all()
        for a, b in zip(some, (every[0], every[len(every) // 2], every[-1]), strict=True)
    )


def test_images_that_moved_have_to_be_named(root: Path, tmp_path: Path) -> None:
    (root / "pictures").rename(root / "elsewhere")
    try:
        code, text = export(root, tmp_path / "out", "torch-export")
        assert code == 2
        assert "`--check PHOTOS` names other images" in text
        photos = str(root / "elsewhere" / "ant")
        code, text = export(root, tmp_path / "out", "torch-export", "--check", photos)
        assert code == 0, text
        assert "for 12 of 12 images" in text
    finally:
        (root / "elsewhere").rename(root / "pictures")


def test_bad_input_is_one_sentence_and_writes_nothing(root: Path, tmp_path: Path) -> None:
    cla.export(root / "run", tmp_path / "bundle")
    out = tmp_path / "out"
    for arguments, sentence in (
        (["onix"], "unknown format 'onix'; did you mean 'onnx'? Known: bundle, onnx, torch-export"),
        (
            ["torch-export", "--check", str(tmp_path / "none")],
            "must be a file or a folder that exi",
        ),
    ):
        code, text = export(root, out, *arguments)
        assert code == 2, (arguments, text)
        assert sentence in text
    with pytest.raises(cla.InputError, match="a bundle has none: `--check PHOTOS` names some"):
        cla.export(tmp_path / "bundle", out, format="torch-export")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
