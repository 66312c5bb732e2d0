"""What holds for each strategy by name, beside the conformance suite (`checks/test_suite.py`)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute, TransformGroups
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics, loss_metrics
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor
from torch.utils.data import TensorDataset

from cl_adapters.errors import InputError, RunError
from cl_adapters.strategies import STRATEGIES, find_strategy
from cl_adapters.strategies.core.output import as_output
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.marks import by_default

EXPERIENCES = [[3, 0], [1, 4], [2, 5, 6]]  # labels in no order, not all of one size


def build(name: str, vit: AdaptedViT, *, epochs: int = 4, **arguments: Any) -> AdapterStrategy:
    strategy = STRATEGIES[name]
    options = {"batch_size": 8, "epochs": epochs, "freeze_epochs": epochs - 1, "projections": 200}
    options |= {"guess_epochs": epochs}
    options = {key: options[key] for key in options if key in strategy.config_class.model_fields}
    if name in {"ssiat", "tuna"}:  # cosines times 20 of features that are almost alike here
        options["lr"] = 0.002
    arguments.setdefault("evaluator", EvaluationPlugin(loggers=[BaseLogger()]))
    return strategy(backbone=vit, config=strategy.config_class().override(options), **arguments)


@pytest.fixture(params=STRATEGIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# The conformance suite trains all by the same calls; by default, one of each way of training here.
@pytest.mark.parametrize(
    "name", by_default(STRATEGIES, ["simplecil", "finetune", "joint", "mos", "l2p"])
)
def test_plain_avalanche_code_drives_it(
    name: str, tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    class Counter(SupervisedPlugin):
        calls: list[str] = []  # noqa: RUF012

        def before_training_exp(self, strategy: Any, **_: Any) -> None:
            self.calls.append("train")

        def after_eval(self, strategy: Any, **_: Any) -> None:
            self.calls.append("eval")

    counter = Counter()
    counter.calls = []
    metrics = (
        accuracy_metrics(experience=True, stream=True),
        loss_metrics(stream=True),
        forgetting_metrics(experience=True),
    )
    evaluator = EvaluationPlugin(*metrics, loggers=[BaseLogger()])
    strategy = build(name, tiny_vit, plugins=[counter], evaluator=evaluator)
    benchmark = make_stream(EXPERIENCES)
    for experience in benchmark.train_stream:
        strategy.train(experience)
        results = strategy.eval(benchmark.test_stream)  # classes to come included
    assert counter.calls == ["train", "eval"] * 3
    # Finetune keeps the last three of seven classes, the others more.
    assert results["Top1_Acc_Stream/eval_phase/test_stream"] > 0.3
    assert results["Loss_Stream/eval_phase/test_stream"] < 1000
    assert any(key.startswith("ExperienceForgetting") for key in results)


def train_and_predict(strategy: AdapterStrategy, benchmark: Any, images: Tensor) -> Tensor:
    strategy.train(benchmark.train_stream)
    with torch.no_grad():
        return as_output(strategy.model.eval()(images)).logits


def test_another_seed_gives_another_result(
    name: str, tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    images = torch.randn(16, 3, 32, 32)
    benchmark = make_stream(EXPERIENCES[:1])
    one, two = (
        train_and_predict(build(name, tiny_vit, epochs=1, seed=s), benchmark, images)
        for s in (3, 4)
    )
    # Statistics of frozen features depend on nothing random.
    assert torch.equal(one, two) == (name in {"simplecil", "fecam"})


def test_a_state_that_does_not_fit_is_refused(
    name: str, tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    benchmark = make_stream(EXPERIENCES)
    strategy = build(name, tiny_vit, epochs=1)
    strategy.train(benchmark.train_stream[0])
    with pytest.raises(InputError, match="checkpoint must fit strategy .* after 2 experiences"):
        build(name, tiny_vit, epochs=1).restore(
            strategy.learned_state(), benchmark.train_stream[:2]
        )


def test_bad_pixels_stop_it_with_one_sentence(
    name: str, tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(name, tiny_vit, epochs=1)
    strategy.train(make_stream([[0, 1]]).train_stream[0])
    strategy.is_training = False
    strategy.mbatch = [torch.full((2, 3, 32, 32), torch.nan), torch.zeros(2, dtype=torch.long)]
    with pytest.raises(InputError, match="pixels must be finite"):
        strategy.forward()


def test_joint_forgets_less_than_finetune(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    benchmark = make_stream([[0, 1], [2, 3], [4, 5]])
    first = {}
    for name in ("finetune", "joint"):
        strategy = build(name, tiny_vit)
        strategy.train(benchmark.train_stream)
        dataset = benchmark.test_stream[0].dataset
        images = torch.stack([sample[0] for sample in dataset])
        targets = torch.tensor([sample[1] for sample in dataset])
        with torch.no_grad():
            guess = as_output(strategy.model.eval()(images)).logits.argmax(dim=1)
        first[name] = float((guess == targets).float().mean())
    assert first["joint"] > 0.9
    assert first["finetune"] < 0.3


def test_simplecil_does_not_augment(tiny_vit: AdaptedViT) -> None:
    labels = [0, 0, 1, 1]
    data = TensorDataset(torch.randn(4, 3, 32, 32), torch.tensor(labels))
    spoilt = TransformGroups({"train": (lambda image: image * torch.nan, None), "eval": None})
    dataset = AvalancheDataset(
        [data], data_attributes=[DataAttribute(labels, "targets")], transform_groups=spoilt
    )
    strategy = build("simplecil", tiny_vit)
    strategy.train(benchmark_from_datasets(train=[dataset]).train_stream)
    assert strategy.classes_seen == [0, 1]
    with pytest.raises(InputError, match="finite"):
        build("finetune", tiny_vit).train(benchmark_from_datasets(train=[dataset]).train_stream)


def test_an_exploding_loss_stops_training(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build("finetune", tiny_vit)
    strategy.batch_loss = lambda logits, targets: logits.sum() * torch.inf  # type: ignore[method-assign]
    with pytest.raises(
        RunError,
        match="loss must stay finite and below 1e.06, got .* in experience 0, phase .train., epoch 0, batch 0 at",
    ):
        strategy.train(make_stream([[0, 1]]).train_stream[0])


def test_unknown_strategies_suggest_the_near_ones() -> None:
    with pytest.raises(InputError, match="unknown strategy 'finetun'; did you mean 'finetune'"):
        find_strategy("finetun")


def test_joint_at_once_begins_each_experience_from_weights_that_know_nothing(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    """After one step at a rate of almost 0 what is left are the weights that training began with."""

    def learned(rate: float, **options: Any) -> dict[str, Tensor]:
        config = STRATEGIES["joint"].config_class().override({"epochs": 1, "lr": rate, **options})
        strategy = STRATEGIES["joint"](backbone=tiny_vit, config=config, seed=3, fixed_views=True)
        for experience in make_stream(EXPERIENCES).train_stream:
            strategy.train(experience)
        return strategy.learned_state()

    begun, moved = learned(1e-12, at_once=True), learned(1e-12)
    adapters = [name for name in begun if name.startswith("adapters")]
    assert adapters
    assert all(torch.allclose(begun[name], moved[name], atol=1e-6) for name in adapters)
    once, kept = learned(0.01, at_once=True), learned(0.01)
    distance = {
        name: sum(float((state[name] - begun[name]).abs().sum()) for name in adapters)
        for name, state in (("once", once), ("kept", kept))
    }
    assert 0 < distance["once"] < distance["kept"]
