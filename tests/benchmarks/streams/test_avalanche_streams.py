"""Our streams are Avalanche's: its own strategies work on them. Its metrics: `test_streams.py`."""

from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import split_online_stream
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.logging import BaseLogger
from avalanche.training import supervised
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor, nn

from cl_adapters.benchmarks.data.sources import array_source
from cl_adapters.benchmarks.streams.class_incremental import make_plan
from cl_adapters.benchmarks.streams.experiences import make_benchmark
from cl_adapters.images.transforms import Preprocess

CLASSES = 6


@pytest.fixture(scope="module")
def benchmark() -> Any:
    """Six classes told apart by the row that is bright, two an experience."""
    generator = np.random.default_rng(0)

    def images(per_class: int) -> tuple[np.ndarray, np.ndarray]:
        targets = np.repeat(np.arange(CLASSES), per_class)
        pixels = generator.integers(0, 60, (len(targets), 12, 12, 3), dtype=np.uint8)
        for index, target in enumerate(targets):
            pixels[index, 2 * target : 2 * target + 2] += 180
        return pixels, targets

    source = array_source("stripes", images(10), images(4))
    pixels = Preprocess(image_size=12, mean=(0.5,) * 3, std=(0.5,) * 3)
    return make_benchmark(source, make_plan(source, increment=2, seed=3), pixels)


class TinyNet(nn.Module):
    """A linear classifier of the mean brightness of each row."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(12, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(images.mean(dim=(1, 3)))
        return logits


OWN: dict[str, dict[str, Any]] = {
    "Naive": {},
    "Replay": {"mem_size": 12},
    "EWC": {"ewc_lambda": 1.0},
    "LwF": {"alpha": 1.0, "temperature": 2.0},
    "SynapticIntelligence": {"si_lambda": 0.1},
    "AGEM": {"patterns_per_exp": 8, "sample_size": 8},
    "GDumb": {"mem_size": 12},
    "MAS": {"lambda_reg": 0.01},
    "MIR": {"mem_size": 12, "subsample": 12, "batch_size_mem": 4},
    "ER_ACE": {"mem_size": 12, "batch_size_mem": 4},
    "Cumulative": {},
    "FromScratchTraining": {},
}


def build(name: str, epochs: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TinyNet()
    return getattr(supervised, name)(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=0.1),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=5,
        train_epochs=epochs,
        eval_mb_size=24,
        evaluator=EvaluationPlugin(accuracy_metrics(experience=True), loggers=[BaseLogger()]),
        **OWN.get(name, {}),
    )


@pytest.mark.parametrize("name", OWN)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_avalanches_strategies_train_on_it(name: str, benchmark: Any) -> None:
    strategy = build(name, epochs=3)
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
    results = strategy.eval(benchmark.test_stream)
    *_, newest = [value for key, value in results.items() if "Top1_Acc_Exp" in key]
    assert newest > 0.7, "the classes that were learned last"


def test_its_own_joint_training_solves_it(benchmark: Any) -> None:
    strategy = build("JointTraining", epochs=10)
    strategy.train(benchmark.train_stream)
    assert min(strategy.eval(benchmark.test_stream).values()) > 0.9


def test_an_experience_says_what_avalanche_asks(benchmark: Any) -> None:
    seen: set[int] = set()
    for index, experience in enumerate(benchmark.train_stream):
        here = set(experience.classes_in_this_experience)
        seen |= here
        assert experience.current_experience == index
        assert experience.origin_stream.name == "train"
        assert here == {2 * index, 2 * index + 1}
        assert set(experience.classes_seen_so_far) == seen
        assert set(experience.previous_classes) == seen - here
        assert set(experience.future_classes) == set(range(CLASSES)) - seen
        assert experience.task_labels == [0]
        assert experience.task_label == 0
        assert sorted(set(experience.dataset.targets)) == sorted(here)
    assert (benchmark.n_experiences, benchmark.n_classes) == (3, CLASSES)
    assert [each.origin_stream.name for each in benchmark.test_stream] == ["test"] * 3


def test_it_can_be_split_into_an_online_stream(benchmark: Any) -> None:
    stream = split_online_stream(benchmark.train_stream, experience_size=7)
    sizes = [len(experience.dataset) for experience in stream]
    assert sum(sizes) == 10 * CLASSES
    assert max(sizes) == 7
