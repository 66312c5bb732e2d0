"""A run may be evaluated on a part of the training images; then it sees no test image at all."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cl_adapters.benchmarks.data.sources import open_source
from cl_adapters.benchmarks.data.stores import FileStore
from cl_adapters.benchmarks.running.opening import open_images
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.cli import app
from cl_adapters.errors import InputError
from cl_adapters.records.files import digest
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.records.tables import read_predictions
from cl_adapters.reports.groups import group_runs
from cl_adapters.reports.load import load_runs

TINY = ["--backbone", "test_vit", "--weights", "random", "--image-size", "32", "--increment", "2"]


def photos(folder: Path) -> Path:
    """Four classes, each with a colour of its own, ten images to train on and four to test."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 4)):
        for label in range(4):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 60, (12, 12, 3)) + np.array([60 * label, 90, 30])
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{index}.png")
    return folder


def run(data: Path, out: Path, *extra: str) -> Path:
    command = ["run", "--strategy", "simplecil", "--data", str(data), *TINY, "--quiet"]
    result = CliRunner().invoke(app, [*command, "--out", str(out), *extra])
    assert result.exit_code == 0, result.output
    (folder,) = find_runs([out])
    return folder


def test_no_test_image_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte of an image is read through `encoded`; the files of test are no images even."""
    data = photos(tmp_path / "photos")
    whole = run(data, tmp_path / "whole", "--validation", "0.3")
    for path in (data / "test").rglob("*.png"):
        path.write_bytes(b"no image")
    read: set[str] = set()
    encoded = FileStore.encoded

    def listen(self: FileStore, row: int) -> bytes:
        read.add(self.name(row))
        return encoded(self, row)

    monkeypatch.setattr(FileStore, "encoded", listen)
    spoilt = run(data, tmp_path / "spoilt", "--validation", "0.3", "--cache", "off")
    assert len(read) == 40
    assert all(str(data / "train") in name for name in read)
    assert read_predictions(spoilt).equals(read_predictions(whole))
    assert RunRecord.read(spoilt).fingerprint == RunRecord.read(whole).fingerprint


def test_the_training_images_are_cut_in_two_by_class() -> None:
    plain = open_source("digits")
    source = open_images(RunConfig.parse({"strategy": "lae", "validation": 0.2}))
    train, held_out = set(source.train.digests), set(source.test.digests)
    assert not train & held_out
    assert train | held_out == set(plain.train.digests)
    for label in range(10):
        whole = int((plain.train.targets == label).sum())
        assert int((source.test.targets == label).sum()) == pytest.approx(0.2 * whole, abs=1)
    again = open_images(RunConfig.parse({"strategy": "mos", "validation": 0.2, "seed": 3}))
    assert again.test.digests == source.test.digests, "whatever the run's seed"


def test_such_runs_are_kept_apart(tmp_path: Path) -> None:
    data = photos(tmp_path / "photos")
    plain = run(data, tmp_path / "plain")
    held_out = run(data, tmp_path / "held", "--validation", "0.3")
    assert plain.parent.parent.name == "photos"
    assert held_out.parent.parent.name == "photos-validation"
    assert RunRecord.read(held_out).fingerprint["validation"] == 0.3
    assert "validation" not in RunRecord.read(plain).fingerprint
    found = group_runs(load_runs([plain, held_out]).finished, force=True)
    assert [group.stream for group in found] == ["photos", "photos-validation"]


def test_recipes_without_it_are_the_runs_they_were() -> None:
    recipe = RunConfig.parse({"strategy": "lae"})
    assert "validation" not in recipe.model_dump()
    other = RunConfig.parse({"strategy": "lae", "validation": 0.25})
    assert digest(other.model_dump(mode="json")) != digest(recipe.model_dump(mode="json"))


@pytest.mark.parametrize("share", [0, 1, -0.5, "a fifth"])
def test_bad_shares_are_refused(share: object) -> None:
    with pytest.raises(InputError, match="validation"):
        RunConfig.parse({"strategy": "lae", "validation": share})


def test_a_class_of_one_training_image_is_named(tmp_path: Path) -> None:
    data = photos(tmp_path / "photos")
    for path in sorted((data / "train" / "class2").iterdir())[1:]:
        path.unlink()
    with pytest.raises(InputError, match="class 'class2' must have at least two images"):
        prepare(RunConfig.parse({"strategy": "lae", "data": str(data), "validation": 0.5}))
