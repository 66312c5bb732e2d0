"""What was read of the data stands in the record of every run, whoever began it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl_adapters.benchmarks.running.batch import expand, run_batch
from cl_adapters.benchmarks.running.opening import open_images
from cl_adapters.benchmarks.sweeps.engine_local import run_one
from cl_adapters.benchmarks.sweeps.retries import Workers
from cl_adapters.benchmarks.sweeps.tune_command import Effort, make_search, run_tune
from cl_adapters.records.run_record import RunRecord, find_runs

TINY = {"backbone": "test_vit", "weights": "random", "image_size": 32, "increment": 1}
SEEN = {
    "layout": "class folders, split by content",
    "left_out": {"hidden": 1, "no image by the name": 1},
    "images": {"in CMYK, turned into RGB as Pillow does": 3},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of eight images, three of them in CMYK, beside two files that are none."""
    folder = tmp_path_factory.mktemp("images") / "photos"
    generator = np.random.default_rng(0)
    for label in range(2):
        (folder / f"class{label}").mkdir(parents=True)
        for index in range(8):
            pixels = generator.integers(0, 60, (12, 12, 3)) + np.array([90 * label, 90, 30])
            image = Image.fromarray(pixels.astype(np.uint8))
            is_odd = label == 0 and index < 3
            name = f"{index}.{'jpg' if is_odd else 'png'}"
            (image.convert("CMYK") if is_odd else image).save(folder / f"class{label}" / name)
    (folder / "class0" / ".hidden.png").write_bytes(b"")
    (folder / "class1" / "notes.txt").write_text("of mine")
    return folder


def test_of_a_run(photos: Path, tmp_path: Path) -> None:
    values = {"strategy": "simplecil", "data": str(photos), **TINY}
    configs = expand(values, recipe=None, seeds=2, settings=())
    folders = run_batch(configs, tmp_path, quiet=True)
    assert [RunRecord.read(folder).data for folder in folders] == [SEEN, SEEN]


def test_of_a_sweep(photos: Path, tmp_path: Path) -> None:
    values = {"strategy": "simplecil", "data": str(photos), **TINY}
    (config,) = expand(values, recipe=None, seeds=1, settings=())
    for cache in ("off", str(tmp_path / "cache")):
        outcome = run_one(config, tmp_path / Path(cache).name, Workers(cache=cache))
        assert outcome.error is None
        assert outcome.folder is not None
        assert RunRecord.read(outcome.folder).data == SEEN


@pytest.mark.slow
def test_of_a_search(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    search = make_search(
        {"strategy": "finetune", "data": str(photos), "validation": 0.3, **TINY},
        recipe=None,
        settings=["epochs=1"],
        space=["lr=0.001:0.01"],
        out=tmp_path,
    )
    run_tune(search, Effort(trials=1, cache="off", quiet=True))
    (folder,) = find_runs([tmp_path])
    source = open_images(search.config)  # without the images of the test set
    names = {each.name(row) for each in (source.train, source.test) for row in range(len(each))}
    (note,) = SEEN["images"]
    assert RunRecord.read(folder).data["images"] == {note: sum(".jpg" in each for each in names)}
