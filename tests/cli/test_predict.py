"""`cl-adapters predict` and `export` from outside: tables, labels, copies, bad input."""

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cl_adapters.benchmarks.prediction import _as_folder
from cl_adapters.bundle.files import load
from tests.bundle.runs import CLASSES, learn, write_pictures
from tests.cli.test_cli import call


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of MOS on four classes, and six images of each to be answered, one of them broken."""
    root = tmp_path_factory.mktemp("predict")
    data = write_pictures(root / "pictures")
    _, folder = learn(data, root / "runs", "mos")
    folder.rename(root / "run")
    write_pictures(root / "new", each=6)
    (root / "new" / "cat" / "broken.png").write_bytes(b"nothing")
    (root / "new" / "notes.txt").write_text("none")
    return root


def predict(root: Path, *arguments: object) -> tuple[int, str]:
    return call("predict", str(root / "run"), *map(str, arguments))


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_tables_hold_what_the_model_answers(root: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"answers.{suffix}"
    code, text = predict(root, root / "new", "--top", 2, "--out", out)
    assert code == 1
    assert "1 image could not be read" in text
    assert "1 file left out (no image by the name: 1)" in text
    read: dict[str, Any] = {
        "csv": pd.read_csv,
        "json": lambda path: pd.DataFrame(json.loads(path.read_text("utf-8"))),
        "parquet": pd.read_parquet,
    }
    table = read[suffix](out)
    assert list(table.columns) == [
        "image", "prediction", "confidence", "prediction_2", "confidence_2", "experience", "adapter",
    ]  # fmt: skip
    paths = [path for path in sorted((root / "new").rglob("*.png")) if path.name != "broken.png"]
    assert sorted(table["image"]) == [str(path) for path in paths]
    answers = load(root / "run").predict(table["image"].tolist())
    assert table["prediction"].tolist() == answers.names
    assert table["confidence"].tolist() == pytest.approx(answers.confidence.tolist())
    assert table["prediction_2"].tolist() == [top[1][0] for top in answers.top(2)]
    assert table["adapter"].tolist() == answers.adapters["all blocks"].tolist()


def test_labels_give_accuracy_and_confusions(root: Path) -> None:
    code, text = predict(root, root / "new", "--labels", "--quiet")
    assert code == 1
    paths = [path for path in sorted((root / "new").rglob("*.png")) if path.name != "broken.png"]
    names = load(root / "run").predict(paths).names
    right = sum(path.parent.name == name for path, name in zip(paths, names, strict=True))
    assert f"{100 * right / 24:.2f} % of 24 images are right" in text
    for name in CLASSES:
        own = [each for path, each in zip(paths, names, strict=True) if path.parent.name == name]
        (line,) = (line for line in text.splitlines() if line.startswith(f"{name} "))
        assert line.split()[1:3] == ["6", f"{100 * own.count(name) / 6:.1f}"]


def test_copies_lie_by_class_and_nothing_is_overwritten(root: Path, tmp_path: Path) -> None:
    (path,) = (root / "new" / "ant").glob("00.png")
    for _ in range(2):
        code, text = predict(
            root, path, root / "new" / "bee" / "00.png", "--copy-to", tmp_path / "to"
        )
        assert code == 0, text
    copies = sorted((tmp_path / "to").rglob("*.png"))
    names = load(root / "run").predict([path, root / "new" / "bee" / "00.png"]).names
    assert {each.parent.name for each in copies} == set(names)
    assert len(copies) == 4
    data = {each.read_bytes() for each in copies}
    assert data == {path.read_bytes(), (root / "new" / "bee" / "00.png").read_bytes()}


def table_of(root: Path, path: Path, **columns: Any) -> Path:
    images = [each.read_bytes() for each in sorted((root / "new" / "ant").glob("*.png"))]
    pq.write_table(pa.table({"image": images, **columns}), path)
    return path


def test_a_table_of_images_needs_no_labels(root: Path, tmp_path: Path) -> None:
    table = table_of(root, tmp_path / "images.parquet")
    out = tmp_path / "answers.csv"
    code, text = predict(root, table, "--out", out, "--copy-to", tmp_path / "copies")
    assert code == 0, text
    rows = pd.read_csv(out)
    assert rows["image"].tolist() == [f"{table}:{row}" for row in range(6)]
    paths = sorted((root / "new" / "ant").glob("*.png"))
    assert rows["prediction"].tolist() == load(root / "run").predict(paths).names
    assert len(list((tmp_path / "copies").rglob("*.png"))) == 6
    code, text = predict(root, table, "--labels")
    assert code == 2
    assert "`--labels` must find a label for each image, but 6 of 6 have none" in text
    named = table_of(root, tmp_path / "named.parquet", label=["ant"] * 6)
    code, text = predict(root, named, "--labels")
    assert code == 0, text
    assert "of 6 images are right" in text


def test_bad_input_is_one_sentence_and_writes_nothing(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"nothing")
    strange = write_pictures(tmp_path / "strange", ("ant", "zebra"), each=1)
    new, out = root / "new", tmp_path / "out.csv"
    for arguments, sentence in (
        ([tmp_path / "missing"], "must be a file or a folder that exists"),
        ([tmp_path / "empty"], "must hold images, got none"),
        ([tmp_path / "bad", "--out", out], "at least one of 1 images must be readable, got: image"),
        ([new, "--out", tmp_path / "out.xls"], "`--out` must end in .csv, .parquet, .json"),
        ([new, "--copy-to", new / "sorted"], "`--copy-to` must lie outside of the images"),
        (
            [strange, "--labels", "--out", out],
            "must find classes that the model knows, got 'zebra'",
        ),
        ([new, "--device", "abacus"], "device must be one that torch can use here"),
        ([new, "--precision", "fp8"], "precision must be fp32 or bf16, got 'fp8'"),
        ([new, "--max-megapixels", "0"], "`max_megapixels` must be a finite number above 0"),
        ([new, "--copy-to", new / "notes.txt"], "`--copy-to` must be a folder, got the file"),
        ([new, "--image-column", "x"], "must go with a parquet file"),
    ):
        code, text = predict(root, *arguments)
        assert code == 2, (arguments, text)
        assert sentence in text
        assert "Traceback" not in text
    code, text = call("predict", str(new), str(new))
    assert code == 2
    assert "must be a run directory or a bundle" in text
    assert not out.exists()
    assert not (new / "sorted").exists()


def test_a_bundle_is_written_and_answers(root: Path, tmp_path: Path) -> None:
    code, text = call("export", str(root / "run"), "--out", str(tmp_path / "bundle"))
    assert code == 0, text
    assert (tmp_path / "bundle" / "README.md").read_text("utf-8").startswith("---\n")
    _, ours = predict(root, root / "new" / "ant" / "00.png")
    _, theirs = call("predict", str(tmp_path / "bundle"), str(root / "new" / "ant" / "00.png"))
    assert ours.splitlines()[-2:] == theirs.splitlines()[-2:]
    code, text = call("export", str(root / "run"), "--out", str(tmp_path / "bundle"))
    assert code == 2
    assert "must be a new folder, got one that exists" in text


def test_one_bad_image_stops_no_other(root: Path, tmp_path: Path) -> None:
    """Neither a name that is no text nor a row without an image."""
    folder = tmp_path / "odd"
    folder.mkdir()
    data = (root / "new" / "ant" / "00.png").read_bytes()
    (folder / "good.png").write_bytes(data)
    with open(os.fsencode(folder) + b"/bad\xff.png", "wb") as file:  # noqa: PTH123
        file.write(data)
    code, text = predict(root, folder, "--out", tmp_path / "answers.csv")
    assert code == 0, text
    assert sorted(pd.read_csv(tmp_path / "answers.csv")["image"].str[-8:]) == [
        "bad\ufffd.png"[-8:],
        "good.png",
    ]
    table = tmp_path / "images.parquet"
    pq.write_table(pa.table({"image": [data, None, data]}), table)
    code, text = predict(root, table, "--out", tmp_path / "answers.json")
    assert code == 1
    assert "1 image could not be read" in text
    rows = json.loads((tmp_path / "answers.json").read_text("utf-8"))
    assert [row["image"] for row in rows] == [f"{table}:0", f"{table}:2"]


def test_an_image_that_is_reached_twice_counts_once(root: Path, tmp_path: Path) -> None:
    ants = root / "new" / "ant"
    out = tmp_path / "answers.csv"
    assert predict(root, ants, ants / "00.png", root / "new" / "." / "ant", "--out", out)[0] == 0
    assert len(pd.read_csv(out)) == 6


def test_classes_that_differ_in_a_slash_have_folders_of_their_own() -> None:
    assert len({_as_folder(name) for name in ("a/b", "a_b", "a\\b", "a%2Fb")}) == 4


def test_export_refuses_options_of_another_format(root: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out")]
    for arguments, sentence in (
        (["--check", str(root)], "`--check` must go with another format, got `--format bundle`"),
        (["--format", "onnx", "--with-backbone"], "`--with-backbone` must go with another format"),
        (["--format", "onnx", "--tolerance", "-1"], "tolerance must be above 0, got -1"),
    ):
        code, text = call("export", str(root / "run"), *out, *arguments)
        assert code == 2, text
        assert sentence in text
    assert not (tmp_path / "out").exists()
