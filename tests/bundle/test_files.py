"""Bundles: whole or not there, refused in one sentence where they are not as they were written."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import save_file

import cl_adapters as cla
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.runner import run_stepwise
from cl_adapters.bundle.files import load, read_learned_model
from cl_adapters.errors import InputError
from cl_adapters.plugins.references import forget_plugins
from cl_adapters.records.files import add_checksum
from cl_adapters.records.run_record import RunRecord
from tests.bundle.runs import config, learn, shared, write_pictures


@pytest.fixture(scope="module")
def run(tiny_runs: Path) -> Path:
    return shared(tiny_runs, "lae")[1]


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cla.export(run, tmp_path_factory.mktemp("bundles") / "lae", with_backbone=True)


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def edit(folder: Path, **values: Any) -> None:
    path = folder / "bundle.json"
    known = json.loads(path.read_text("utf-8"))
    known.pop("checksum")
    for name, value in values.items():
        (known if name in known else known["sheet"])[name] = value
    path.write_text(json.dumps(add_checksum(known)), "utf-8")


def test_a_bundle_answers_as_its_run_does(run: Path, bundle: Path, tmp_path: Path) -> None:
    paths = sorted(write_pictures(tmp_path, each=2).rglob("*.png"))
    ours, theirs = load(bundle).predict(paths), load(run).predict(paths)
    assert (ours.probabilities == theirs.probabilities).all()
    assert ours.classes == theirs.classes
    assert load(bundle).sheet.metrics["a_last_micro"] >= 0


def test_a_bundle_goes_on_without_the_run_and_its_weights(tmp_path: Path) -> None:
    """With `--with-backbone` nothing is left that the run's machine had."""
    data = write_pictures(tmp_path / "data")
    weights = tmp_path / "weights.safetensors"
    vit = shared(tmp_path, "simplecil")[0].backbone.model.vit
    changed = {name: value + 0.01 for name, value in vit.state_dict().items()}
    save_file(changed, weights)
    _, folder = learn(data, tmp_path / "own", "simplecil", weights=str(weights))
    alone = cla.export(folder, tmp_path / "alone", with_backbone=True)
    without = cla.export(folder, tmp_path / "without")
    paths = sorted(data.rglob("*.png"))[:4]
    before = load(folder).predict(paths).probabilities
    moved = weights.rename(tmp_path / "moved.safetensors")
    assert (load(alone).predict(paths).probabilities == before).all()
    with pytest.raises(InputError, match="there is no such file any more; `--weights`"):
        load(without)
    assert (load(without, weights=moved).predict(paths).probabilities == before).all()
    save_file({name: value + 0.02 for name, value in changed.items()}, moved)
    with pytest.raises(InputError, match="must be the one that the model was trained on, digest"):
        load(without, weights=moved)


@pytest.mark.parametrize("name", ["bundle.json", "learned.safetensors", "backbone.safetensors"])
def test_no_bit_can_change_unseen(copy: Path, name: str) -> None:
    path = copy / name
    whole = path.read_bytes()
    source = np.random.default_rng(0)
    for place in source.integers(0, len(whole), 20).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(source.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="must"):
            read_learned_model(copy)
    path.unlink()
    with pytest.raises(InputError, match="must"):
        read_learned_model(copy)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"bundle_format": 3}, "must have a bundle format up to 2, got 3: a newer cl-adapters"),
        ({"bundle_format": "1"}, "must have a bundle format from 1 on, got '1'"),
        ({"sheet": {}}, "must hold every key of a bundle, lacks"),
        ({"files": []}, "must hold a sheet and its files"),
        ({"learned": [[7]]}, "learned must list labels below 4"),
        ({"classes": "abcd"}, "classes must be a list, got 'abcd'"),
        ({"options": {"no_such": 1}}, "no_such"),
        ({"strategy": "sema", "options": {}}, "checkpoint must fit strategy SEMA"),
        ({"pixels": {"image_size": 32}}, "pixels must hold the settings of a pipeline"),
        ({"precision": "fp8"}, "precision must be fp32 or bf16"),
    ],
)
def test_what_a_checksum_was_made_to_fit_is_refused(
    copy: Path, values: dict[str, Any], sentence: str
) -> None:
    edit(copy, **values)
    with pytest.raises(InputError, match=sentence):
        load(copy)


def test_nothing_is_left_of_a_bundle_that_could_not_be_written(run: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()
    with pytest.raises(InputError, match="must be a new folder, got one that exists"):
        cla.export(run, place)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be writable"):
        cla.export(run, tmp_path / "file" / "bundle")
    with pytest.raises(InputError, match="format must be one of bundle, got 'zip'|unknown format"):
        cla.export(run, tmp_path / "other", format="zip")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "out"]


def test_a_run_that_is_at_work_or_has_learned_nothing_is_refused(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data")
    _, folder = learn(data, tmp_path / "runs", "simplecil")
    with FileLock(folder / ".lock"), pytest.raises(InputError, match="must not be at work"):
        load(folder)
    record = RunRecord.read(folder)
    record.experiences_done, record.state = 0, "interrupted"
    record.write(folder)
    with pytest.raises(InputError, match="must have learned an experience"):
        load(folder)


def test_an_unfinished_run_answers_with_what_it_knows(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data")
    prepared = prepare(config(data, "simplecil"))
    steps = run_stepwise(prepared, tmp_path / "runs")
    folder = next(steps)
    steps.close()
    loaded = load(folder)
    first = [prepared.plan.classes[label] for label in prepared.plan.experiences[0]]
    assert sorted(loaded.classes) == sorted(first)
    bundle = cla.export(folder, tmp_path / "bundle")
    assert "of 2 planned" in (bundle / "README.md").read_text("utf-8")
    assert load(bundle).classes == loaded.classes


def test_the_only_run_below_a_folder_is_meant_and_several_are_named(
    run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "runs" / "one")
    assert load(tmp_path).sheet == load(run).sheet
    shutil.copytree(run, tmp_path / "runs" / "two")
    with pytest.raises(InputError, match="must be a run directory or a bundle; 2 runs lie below"):
        load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="must be a run directory or a bundle$"):
        load(tmp_path / "empty")


def test_nothing_of_a_parent_changes(run: Path, tmp_path: Path) -> None:
    def digests() -> dict[str, str]:
        files = (path for path in run.rglob("*") if path.is_file())
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = digests()
    load(run).predict(torch.zeros(1, 8, 8, 3, dtype=torch.uint8).numpy())
    cla.export(run, tmp_path / "bundle")
    assert digests() == before


OWN = """
from cl_adapters.strategies.simplecil import SimpleCIL


class Mine(SimpleCIL):
    \"\"\"Class means under a name of my own.\"\"\"
"""


def test_code_that_has_changed_since_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle names the file of a method of one's own, and runs no other."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OWN)
    data = write_pictures(tmp_path / "data")
    _, folder = learn(data, tmp_path / "runs", "mine.py:Mine")
    bundle = cla.export(folder, tmp_path / "bundle")
    paths = sorted(data.rglob("*.png"))[:4]
    before = load(bundle).predict(paths).probabilities
    assert (load(folder).predict(paths).probabilities == before).all()
    Path("mine.py").write_text(OWN + "raise RuntimeError('this ran')\n")
    forget_plugins()
    for place in (bundle, folder):
        with pytest.raises(InputError, match="plugin 'mine.py:Mine' must be as it was when"):
            load(place)
    Path("mine.py").unlink()
    with pytest.raises(InputError, match="got no file; it is looked for from the folder where"):
        load(bundle)


def test_a_bundle_of_a_bundle_keeps_the_card(bundle: Path, tmp_path: Path) -> None:
    again = cla.export(bundle, tmp_path / "again")
    for name in ("README.md", "accuracy.png"):
        assert (again / name).read_bytes() == (bundle / name).read_bytes()
    assert load(again).sheet == load(bundle).sheet
