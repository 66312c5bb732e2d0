"""Avalanche benchmarks of any make as runs with records."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from avalanche.benchmarks import (
    benchmark_from_datasets,
    tensors_benchmark,
)
from avalanche.benchmarks.utils import as_classification_dataset
from torch import Tensor

from cl_adapters.benchmarks.data.sources import array_source
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.foreign import ForeignStream, run_benchmark
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.errors import InputError
from cl_adapters.records.events import read_events
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions
from cl_adapters.reports.load import load_runs
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.core.strategy import AdapterStrategy
from tests.benchmarks.running.foreign_streams import (
    QUICK,
    by_class,
    from_datasets,
    images,
    new_instances,
    tensors,
)
from tests.marks import by_default

TINY: dict[str, Any] = {"backbone": "test_vit", "weights": "random", "image_size": 32}


# --- as runs ---------------------------------------------------------------------------------


def run(strategy: str, benchmark: Any, out: Path, name: str = "theirs", **settings: Any) -> Path:
    known = find_strategy(strategy).config_class.model_fields
    options = {key: value for key, value in QUICK.items() if key in known}
    given = {**TINY, "options": options, **settings}
    return run_benchmark(strategy, benchmark, name=name, out=out, **given)


def pixels(generator: np.random.Generator, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    targets = np.repeat(np.arange(4), per_class)
    shown = generator.integers(0, 90, (len(targets), 12, 12, 3), dtype=np.uint8)
    shown[np.arange(len(targets)), 3 * targets] += 150
    return shown, targets


@pytest.mark.parametrize("strategy", by_default(["lae", "mos", "avalanche:Replay"], ["mos"]))
def test_it_equals_our_own_stream_over_the_same_images(strategy: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    source = array_source("stripes", pixels(generator, 6), pixels(generator, 3))
    known = find_strategy(strategy).config_class.model_fields
    recipe = {
        "strategy": strategy, "increment": 2, "class_order": "2,0,3,1", **TINY,
        "options": {key: value for key, value in QUICK.items() if key in known},
    }  # fmt: skip
    prepared = prepare(RunConfig.parse(recipe), source=source)
    ours = runner.run(prepared, tmp_path / "ours")

    def tensors_of(split: Any, classes: list[int]) -> tuple[Tensor, Tensor]:
        rows = np.flatnonzero(np.isin(split.targets, classes))
        seen = [prepared.preprocess.evaluate(split.read(row)) for row in rows]
        # The same classes by their positions, 2 to 0 and so on.
        return torch.stack(seen), torch.tensor([[1, 3, 0, 2][split.targets[row]] for row in rows])

    groups = [[2, 0], [3, 1]]
    benchmark = tensors_benchmark(
        train_tensors=[tensors_of(source.train, each) for each in groups],
        test_tensors=[tensors_of(source.test, each) for each in groups],
        task_labels=[0, 0],
    )
    theirs = run(strategy, benchmark, tmp_path / "theirs", fixed_views=True)
    columns = ["experience", "target_experience", "target", "prediction", "confidence", "nll"]
    pd.testing.assert_frame_equal(
        read_predictions(theirs)[columns], read_predictions(ours)[columns], check_exact=True
    )


def test_the_record_says_what_the_benchmark_was(tmp_path: Path) -> None:
    folder = run("finetune", from_datasets([[7, 3], [40], [3]]), tmp_path, seed=2)
    assert folder.parent == tmp_path / "theirs" / "finetune"
    record = RunRecord.read(folder)
    assert (record.state, record.experiences_done, record.seed) == ("finished", 3, 2)
    assert record.classes == ["3", "7", "40"]
    assert record.experiences == [[0, 1], [2], [0]]
    assert record.fingerprint["class_order"] == [3, 7, 40]
    assert record.fingerprint["data"]["train"]["images"] == 16
    assert record.config["benchmark"] == "theirs"
    assert "increment" not in record.config
    rows = read_predictions(folder)
    assert rows.groupby("experience").size().tolist() == [6, 9, 12]
    assert rows.query("target_experience == 1")["target"].unique().tolist() == [2]
    assert {each.event for each in read_events(folder)} >= {"phase", "evaluation", "memory"}
    assert run("finetune", from_datasets([[7, 3], [40], [3]]), tmp_path, seed=2) == folder


def test_one_whole_test_set_is_dealt_out_by_class(tmp_path: Path) -> None:
    folder = run("simplecil", tensors(complete=True), tmp_path)
    rows = read_predictions(folder)
    assert rows.groupby(["experience", "target_experience"]).size().tolist() == [4, 4, 4]
    assert (rows["target"] // 2 == rows["target_experience"]).all()
    folder = run("simplecil", new_instances(), tmp_path, name="instances")
    assert read_predictions(folder).groupby("experience").size().tolist() == [6, 6]


def test_images_of_classes_that_are_never_trained_are_left_out(tmp_path: Path) -> None:
    benchmark = from_datasets([[4, 2], [6]], tested=[[4, 2, 9], [6, 9]])
    rows = read_predictions(run("simplecil", benchmark, tmp_path))
    assert rows.query("experience == 1")["sample"].tolist() == [0, 1, 2, 3, 4, 5, 9, 10, 11]


def test_reports_read_it_beside_others(tmp_path: Path) -> None:
    benchmark = from_datasets([[0, 1], [2, 3]])
    for strategy in ("finetune", "avalanche:Naive"):
        run(strategy, benchmark, tmp_path)
    loaded = load_runs([tmp_path])
    assert not loaded.broken
    names = [each.record.strategy for each in loaded.finished]
    assert names == ["avalanche.Naive", "finetune"]
    one, two = loaded.finished
    assert one.record.fingerprint == two.record.fingerprint
    assert one.values["a_last_micro"] == two.values["a_last_micro"], "Naive is Finetune"


def test_the_fingerprint_knows_the_images_but_not_their_order() -> None:
    def describe(*experiences: list[int], **kwargs: Any) -> Any:
        stream = ForeignStream(from_datasets(list(experiences), **kwargs))
        return stream.describe((3, 32, 32))["train"]

    def brighten(pixels: Tensor) -> Tensor:
        pixels[0, 0, 0, 0] += 1
        return pixels

    same = describe([0, 1])
    assert describe([0, 1], spoil=lambda each: each.clone()) == same
    assert describe([0, 1], spoil=brighten) != same
    turned = benchmark_from_datasets(
        train=[as_classification_dataset(images(by_class([0, 1], 4), 1)).subset(range(7, -1, -1))],
        test=[as_classification_dataset(images([0, 1], 2))],
    )  # fmt: skip
    assert ForeignStream(turned).describe((3, 32, 32))["train"] == same


def test_an_order_with_a_name_lets_seeds_have_their_own(tmp_path: Path) -> None:
    one, two = (
        RunRecord.read(run("simplecil", from_datasets(each), tmp_path, seed=seed, order="shuffled"))
        for seed, each in enumerate(([[0, 1], [2]], [[2, 0], [1]]))
    )
    assert one.classes != two.classes
    assert {**one.fingerprint, "data": 0} == {**two.fingerprint, "data": 0}


@pytest.mark.parametrize(
    ("experiences", "settings", "message"),
    [
        ([[0, 1]], {"increment": 2}, "unknown setting 'increment'"),
        ([[0, 1]], {"presicion": "bf16"}, "unknown setting 'presicion'; did you mean 'precision'"),
        ([[0, 1]], {"image_size": 64}, r"image 0 of train experience 0 must be .* \(3, 64, 64\)"),
        ([[0, 1]], {"options": {"epochz": 1}}, "unknown option 'epochz'"),
        ([[0, 1], []], {}, "training experience 1 must hold images, got none"),
        ([[0, -2]], {}, "labels must be whole numbers from 0 on, got -2"),
    ],
)
def test_bad_input_ends_in_one_sentence_before_anything_is_written(
    experiences: list[list[int]], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        run("finetune", from_datasets(experiences), tmp_path, **settings)
    assert list(tmp_path.iterdir()) == []


def test_images_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    data = [(f"a photo of {label}", label) for label in (0, 1)]

    class Named(list[Any]):
        targets = (0, 1)

    benchmark = benchmark_from_datasets(
        train=[as_classification_dataset(Named(data))],
        test=[as_classification_dataset(Named(data))],
    )
    with pytest.raises(InputError, match="image 0 of train experience 0 must be .*, got a str"):
        run("finetune", benchmark, tmp_path)


class Notes(runner.Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_an_interrupted_run_continues_or_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: AdapterStrategy, experience: Any, **kwargs: Any) -> Any:
        trained.append(experience.current_experience)
        if experience.current_experience == 1 and len(trained) == 2:
            raise KeyboardInterrupt
        return train(self, experience, **kwargs)

    benchmark = from_datasets([[0, 1], [2, 3]])
    train = AdapterStrategy.train
    for strategy, again in (("avalanche:Replay", [0, 1, 1]), ("avalanche:EWC", [0, 1, 0, 1])):
        straight = read_predictions(run(strategy, benchmark, tmp_path / "straight"))
        trained: list[int] = []
        notes = Notes()
        with monkeypatch.context() as patch:
            patch.setattr(AdapterStrategy, "train", die)
            with pytest.raises(KeyboardInterrupt):
                run(strategy, benchmark, tmp_path / "cut")
            folder = run(strategy, benchmark, tmp_path / "cut", progress=notes)
        assert trained == again
        pd.testing.assert_frame_equal(read_predictions(folder), straight, check_exact=True)
        evaluations = [each for each in read_events(folder) if each.event == "evaluation"]
        assert [each.experience for each in evaluations] == [0, 1]
        begun_again = strategy == "avalanche:EWC"
        assert len(notes.notes) == int(begun_again)
    assert "avalanche.EWC seed 0 begins again from the first experience" in notes.notes[0]
