"""`cl-adapters predict --reject --watch` from outside: tables, sentences, bad input."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageOps

from cl_adapters.benchmarks.calibration import calibrate
from cl_adapters.bundle.files import load
from tests.bundle.runs import learn, write_pictures
from tests.cli.test_cli import call

NAMES = ("ant", "bee", "unknown", "dog")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, new images of its classes, the same inverted, and some of something else."""
    root = tmp_path_factory.mktemp("unknown")
    data = write_pictures(root / "pictures", NAMES, 40)
    prepared, folder = learn(data, root / "runs", "simplecil")
    folder.rename(root / "run")
    test = prepared.source.test
    for index in range(len(test)):
        path = Path(test.name(index).strip("'"))
        for place, picture in (
            ("new", Image.open(path)),
            ("inverted", ImageOps.invert(Image.open(path).convert("RGB"))),
        ):
            (root / place / path.parent.name).mkdir(parents=True, exist_ok=True)
            picture.save(root / place / path.parent.name / path.name)
    (root / "else").mkdir()
    for value in (0, 120, 255):
        Image.new("RGB", (40, 40), (value, value, value)).save(root / "else" / f"{value}.png")
    return root


def predict(root: Path, *arguments: object, model: str = "run") -> tuple[int, str]:
    return call("predict", str(root / model), *map(str, arguments))


def test_images_of_no_known_class_are_answered_unknown(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.csv"
    places = [root / "new", root / "else"]
    code, text = predict(
        root, *places, "--reject", 0.1, "--out", out, "--copy-to", tmp_path / "sorted"
    )
    assert code == 0
    assert "`--reject` is calibrated on the run's training images" in text
    table = pd.read_csv(out)
    model = load(root / "run")
    calibrate(root / "run", model)
    expected = model.predict(table["image"].tolist(), reject=0.1)
    assert table["prediction"].tolist() == expected.names
    assert expected.known is not None
    assert expected.score is not None
    assert table["known"].tolist() == expected.known.tolist()
    assert table["score"].tolist() == pytest.approx(expected.score.tolist())
    rejected = table[~table["known"]]
    assert f"{len(rejected)} of {len(table)} images" in text
    assert set(rejected["prediction"]) == {"unknown"}
    assert {Path(each).name for each in rejected["image"]} >= {"0.png", "120.png", "255.png"}
    # Pictures of the class of that name lie elsewhere.
    known = table[table["known"] & (table["prediction"] == "unknown")]
    assert 0 < len(known) == len(list((tmp_path / "sorted" / "unknown").iterdir()))
    assert len(rejected) == len(list((tmp_path / "sorted" / "unknown (rejected)").iterdir()))


def test_rejected_images_are_not_of_a_class_called_unknown_that_no_image_is_taken_for(
    root: Path, tmp_path: Path
) -> None:
    """The model knows the class; that no image of this call was taken for it changes nothing."""
    options = ("--reject", 0.1, "--copy-to", tmp_path / "sorted")
    code, text = predict(root, root / "else", *options)
    assert code == 0
    assert [each.name for each in (tmp_path / "sorted").iterdir()] == ["unknown (rejected)"]
    rows = [line.split() for line in text.splitlines() if ".png" in line]
    assert len(rows) == 3
    assert all(row[1:3] == ["unknown", "(rejected)"] for row in rows)
    score = load_scores(root)
    assert [float(row[-1]) for row in rows] == pytest.approx(score, rel=0.005)
    assert all(len(row[-1].replace(".", "").strip("0")) <= 3 for row in rows)
    code, text = predict(root, root / "else", "--reject", 0.1, "--out", tmp_path / "answers.csv")
    assert code == 0
    (line,) = (line for line in text.splitlines() if line.startswith("unknown"))
    assert line.split() == ["unknown", "(rejected)", "3"]
    # Files keep all digits, and the name that `known` tells apart.
    table = pd.read_csv(tmp_path / "answers.csv")
    assert set(table["prediction"]) == {"unknown"}
    assert table["score"].tolist() == pytest.approx(score, rel=1e-9)


def load_scores(root: Path) -> list[float]:
    model = load(root / "run")
    calibrate(root / "run", model)
    score = model.predict(sorted((root / "else").iterdir()), reject=0.1).score
    assert score is not None
    return [float(each) for each in score]


def test_rejected_images_of_known_classes_are_wrong_answers(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.json"
    code, text = predict(root, root / "new", "--reject", 0.3, "--labels", "--out", out, "--quiet")
    assert code == 0
    assert "calibrated" not in text
    table = pd.read_json(out)
    right = (table["label"] == table["prediction"]) & table["known"]
    assert 0 < right.sum() < ((table["label"] == table["prediction"]) | ~table["known"]).sum()
    assert f"{100 * right.mean():.2f} % of {len(table)} images are right" in text
    assert "unknown (rejected)" in text


def test_a_folder_that_looks_shifted_is_named_with_its_blocks(root: Path) -> None:
    code, text = predict(root, root / "inverted", "--watch")
    assert code == 0
    assert "`--watch` is calibrated on the run's training images" in text
    assert "the images look other than those of training, in blocks 3, 4, 5" in text
    code, text = predict(root, root / "new", "--watch")
    assert code == 0
    assert "the images look like those of training" in text
    assert "look other" not in text


def test_a_bundle_needs_no_images_and_one_without_calibration_says_so(
    root: Path, tmp_path: Path
) -> None:
    assert call("export", str(root / "run"), "--out", str(tmp_path / "with"))[0] == 0
    code, text = predict(tmp_path, root / "else", "--reject", 0.1, "--watch", model="with")
    assert code == 0
    assert "calibrated" not in text
    assert "3 of 3 images (100.0 %) are of no known class" in text
    without = ("--out", str(tmp_path / "without"), "--no-rejection")
    assert call("export", str(root / "run"), *without)[0] == 0
    for option in (["--reject", 0.1], ["--watch"]):
        code, text = predict(tmp_path, root / "else", *option, model="without")
        assert code == 2
        assert f"`{option[0]}` must find a calibration in bundle" in text


@pytest.mark.parametrize(
    ("rate", "sentence"),
    [
        ("0", "must lie in (0, 1), got 0"),
        ("1", "must lie in (0, 1), got 1"),
        ("nan", "must lie in (0, 1), got nan"),
        ("0.01", "calibrated on at least 99 held-out training images, got 24"),
    ],
)
def test_a_rate_that_cannot_be_kept_is_one_sentence(root: Path, rate: str, sentence: str) -> None:
    code, text = predict(root, root / "else", "--reject", rate, "--quiet")
    assert code == 2
    assert sentence in " ".join(text.split())
    assert "Traceback" not in text
