"""Avalanche benchmarks of any make under our strategies, and as runs with records."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from avalanche.benchmarks import (
    benchmark_from_datasets,
    nc_benchmark,
    ni_benchmark,
    task_incremental_benchmark,
    tensors_benchmark,
)
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor
from torch.utils.data import TensorDataset

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
from cl_adapters.strategies import STRATEGIES, find_strategy
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.conftest import coloured_images

TINY: dict[str, Any] = {"backbone": "test_vit", "weights": "random", "image_size": 32}
QUICK = {
    "batch_size": 8, "epochs": 1, "freeze_epochs": 0, "descriptor_epochs": 1, "alignment_epochs": 1,
}  # fmt: skip


def images(labels: list[int], seed: int, spoil: Callable[[Tensor], Tensor] | None = None) -> Any:
    pixels = coloured_images(labels, seed)
    data = TensorDataset(spoil(pixels) if spoil else pixels, torch.tensor(labels))
    data.targets = labels
    return data


def by_class(classes: list[int], per_class: int) -> list[int]:
    return [label for label in classes for _ in range(per_class)]


def from_datasets(
    experiences: list[list[int]],
    tested: list[list[int]] | None = None,
    per_class: int = 4,
    **kwargs: Any,
) -> Any:
    tested = experiences if tested is None else tested
    return benchmark_from_datasets(
        train=[as_classification_dataset(images(by_class(each, per_class), 1, **kwargs)) for each in experiences],
        test=[as_classification_dataset(images(by_class(each, 3), 2, **kwargs)) for each in tested],
    )  # fmt: skip


def new_classes(**kwargs: Any) -> Any:
    data = images(by_class([0, 1, 2, 3], 6), 1), images(by_class([0, 1, 2, 3], 2), 2)
    return nc_benchmark(*data, n_experiences=2, seed=4, **{"task_labels": False, **kwargs})


def new_instances() -> Any:
    data = images(by_class([0, 1, 2], 8), 1), images(by_class([0, 1, 2], 2), 2)
    return ni_benchmark(*data, n_experiences=2, seed=4)


def tensors(*, complete: bool) -> Any:
    def pair(classes: list[int], count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        labels = by_class(classes, count)
        return coloured_images(labels, count), torch.tensor(labels, dtype=dtype)

    groups = [[0, 1], [2, 3]]
    return tensors_benchmark(
        train_tensors=[pair(each, 6, torch.uint8) for each in groups],
        test_tensors=[pair([0, 1, 2, 3], 2, torch.uint8)]
        if complete
        else [pair(each, 2, torch.uint8) for each in groups],
        task_labels=[0, 0],
        complete_test_set_only=complete,
    )


def build(name: str, vit: AdaptedViT, **arguments: Any) -> AdapterStrategy:
    strategy = find_strategy(name)
    known = strategy.config_class.model_fields
    options = {key: value for key, value in QUICK.items() if key in known}
    return strategy(backbone=vit, config=strategy.config_class().override(options), **arguments)


def silent(*metrics: Any) -> EvaluationPlugin:
    return EvaluationPlugin(*metrics, loggers=[BaseLogger()])


# --- our strategies on their benchmarks, in plain Avalanche code -----------------------------


@pytest.mark.parametrize("name", STRATEGIES)
def test_labels_with_gaps_in_no_order_that_return_train_every_strategy(
    name: str, tiny_vit: AdaptedViT
) -> None:
    benchmark = from_datasets([[7, 3], [40], [1, 3]], per_class=10)
    strategy = build(name, tiny_vit, evaluator=silent(accuracy_metrics(stream=True)))
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
        strategy.eval(benchmark.test_stream)  # with classes that are still to come
    assert strategy.classes_by_experience == [(3, 7), (40,), (1, 3)]
    assert strategy.classes_seen == [1, 3, 7, 40]
    with torch.no_grad():
        outputs = strategy.model.eval()(coloured_images(by_class([1, 3, 7, 40], 3), 5))
    assert set(outputs.argmax(dim=1).tolist()) <= {1, 3, 7, 40}


@pytest.mark.parametrize(
    "make",
    [
        new_classes,
        lambda: new_classes(task_labels=True),
        new_instances,
        lambda: tensors(complete=False),
        lambda: task_incremental_benchmark(from_datasets([[0, 1], [2, 3]], per_class=6)),
    ],
    ids=["nc", "nc with tasks", "ni", "tensors with byte labels", "task-incremental"],
)
@pytest.mark.parametrize("name", ["sema", "joint"])
def test_benchmarks_of_each_make_train(
    name: str, make: Callable[[], Any], tiny_vit: AdaptedViT
) -> None:
    benchmark = make()
    strategy = build(name, tiny_vit, evaluator=silent(accuracy_metrics(stream=True)))
    strategy.train(benchmark.train_stream, eval_streams=[])
    strategy.eval(benchmark.test_stream)
    here = [sorted(set(each.dataset.targets)) for each in benchmark.train_stream]
    assert [list(each) for each in strategy.classes_by_experience] == here


@pytest.mark.parametrize(
    ("name", "trains", "looks"),
    [("finetune", 1, 0), ("joint", 2, 0), ("simplecil", 0, 1), ("mos", 1, 2)],
)
def test_the_transforms_of_each_group_are_kept(
    name: str, trains: int, looks: int, tiny_vit: AdaptedViT
) -> None:
    """Counts, in the second of two experiences of 12 images, how often each group is applied."""
    seen: list[str] = []

    def count(group: str) -> Callable[[Tensor], Tensor]:
        return lambda image: (seen.append(group), image)[1]

    benchmark = new_classes(train_transform=count("train"), eval_transform=count("eval"))
    strategy = build(name, tiny_vit, evaluator=silent())
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    seen.clear()
    strategy.train(benchmark.train_stream[1], eval_streams=[])
    assert [seen.count("train"), seen.count("eval")] == [12 * trains, 12 * looks]
    seen.clear()
    strategy.eval(benchmark.test_stream)
    assert set(seen) == {"eval"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda each: each[:, :1], r"images must have shape \(B, 3, 32, 32\) .* got \(8, 1, 32, 32\)"),
        (lambda each: each[..., :28, :28], r"images must have shape .*, got \(8, 3, 28, 28\)"),
        (lambda each: each.byte(), "pixels must be floating-point .*, got torch.uint8"),
        (lambda each: each * torch.nan, "pixels must be finite"),
    ],
    ids=["grey", "size", "bytes", "nan"],
)  # fmt: skip
def test_images_that_do_not_fit_are_refused_in_one_sentence(
    spoil: Callable[[Tensor], Tensor], message: str, tiny_vit: AdaptedViT
) -> None:
    benchmark = from_datasets([[0, 1]], spoil=spoil)
    with pytest.raises(InputError, match=message):
        build("finetune", tiny_vit, evaluator=silent()).train(benchmark.train_stream)


def test_labels_that_are_no_class_numbers_are_refused(tiny_vit: AdaptedViT) -> None:
    strategy = build("finetune", tiny_vit, evaluator=silent())
    with pytest.raises(InputError, match="labels must be whole numbers from 0 on, got -1"):
        strategy.train(from_datasets([[0, -1]]).train_stream)
    bare = benchmark_from_datasets(train=[as_classification_dataset(images([0, 1], 0))])
    bare.train_stream[0]._dataset = TensorDataset(torch.zeros(1, 3, 32, 32), torch.zeros(1))
    with pytest.raises(InputError, match="dataset of an experience must have `targets`"):
        strategy.register_experience(bare.train_stream[0])


def test_our_accuracy_is_the_one_that_avalanche_logs(tiny_vit: AdaptedViT) -> None:
    benchmark = from_datasets([[3, 0], [1, 5]])
    strategy = build("lae", tiny_vit, evaluator=silent(accuracy_metrics(experience=True)))
    strategy.train(benchmark.train_stream, eval_streams=[])
    logged = list(strategy.eval(benchmark.test_stream).values())
    for accuracy, experience in zip(logged, benchmark.test_stream, strict=True):
        pixels = torch.stack([sample[0] for sample in experience.dataset])
        with torch.no_grad():
            guesses = strategy.model.eval()(pixels).argmax(dim=1).tolist()
        right = np.mean(np.array(guesses) == list(experience.dataset.targets))
        assert accuracy == pytest.approx(float(right))


# --- as runs ---------------------------------------------------------------------------------


def run(strategy: str, benchmark: Any, out: Path, name: str = "theirs", **settings: Any) -> Path:
    known = find_strategy(strategy).config_class.model_fields
    options = {key: value for key, value in QUICK.items() if key in known}
    given = {**TINY, "options": options, **settings}
    return run_benchmark(strategy, benchmark, name=name, out=out, **given)


@pytest.mark.parametrize("strategy", ["lae", "mos", "avalanche:Replay"])
def test_it_equals_our_own_stream_over_the_same_images(strategy: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)

    def pixels(per_class: int) -> tuple[np.ndarray, np.ndarray]:
        targets = np.repeat(np.arange(4), per_class)
        shown = generator.integers(0, 90, (len(targets), 12, 12, 3), dtype=np.uint8)
        shown[np.arange(len(targets)), 3 * targets] += 150
        return shown, targets

    source = array_source("stripes", pixels(6), pixels(3))
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
    assert {each["event"] for each in read_events(folder)} >= {"phase", "evaluation", "memory"}
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


def test_an_interrupted_run_continues_or_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Notes(runner.Progress):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

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
        evaluations = [each for each in read_events(folder) if each["event"] == "evaluation"]
        assert [each["experience"] for each in evaluations] == [0, 1]
        begun_again = strategy == "avalanche:EWC"
        assert len(notes.notes) == int(begun_again)
    assert "avalanche.EWC seed 0 begins again from the first experience" in notes.notes[0]
