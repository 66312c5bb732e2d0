"""Avalanche benchmarks of any make under our strategies."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import (
    benchmark_from_datasets,
    nc_benchmark,
    task_incremental_benchmark,
)
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor
from torch.utils.data import TensorDataset

from cl_adapters.errors import InputError
from cl_adapters.strategies import STRATEGIES, find_strategy
from cl_adapters.strategies.core.output import as_output
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.benchmarks.running.foreign_streams import (
    QUICK,
    by_class,
    from_datasets,
    images,
    new_instances,
    tensors,
)
from tests.conftest import coloured_images
from tests.marks import by_default


def new_classes(**kwargs: Any) -> Any:
    data = images(by_class([0, 1, 2, 3], 6), 1), images(by_class([0, 1, 2, 3], 2), 2)
    return nc_benchmark(*data, n_experiences=2, seed=4, **{"task_labels": False, **kwargs})


def build(name: str, vit: AdaptedViT, **arguments: Any) -> AdapterStrategy:
    strategy = find_strategy(name)
    known = strategy.config_class.model_fields
    options = {key: value for key, value in QUICK.items() if key in known}
    return strategy(backbone=vit, config=strategy.config_class().override(options), **arguments)


def silent(*metrics: Any) -> EvaluationPlugin:
    return EvaluationPlugin(*metrics, loggers=[BaseLogger()])


# --- our strategies on their benchmarks, in plain Avalanche code -----------------------------


@pytest.mark.parametrize(
    "name", by_default(STRATEGIES, ["simplecil", "lae", "sema", "mos", "ease", "l2p"])
)
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
        found = as_output(strategy.model.eval()(coloured_images(by_class([1, 3, 7, 40], 3), 5)))
    assert set(found.logits.argmax(dim=1).tolist()) <= {1, 3, 7, 40}


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
            guesses = as_output(strategy.model.eval()(pixels)).logits.argmax(dim=1).tolist()
        right = np.mean(np.array(guesses) == list(experience.dataset.targets))
        assert accuracy == pytest.approx(float(right))
