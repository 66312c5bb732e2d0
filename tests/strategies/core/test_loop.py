"""When a method is asked what, and in which mode its modules are called."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from avalanche.core import SupervisedPlugin
from torch import nn
from torch.utils.data import TensorDataset

from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.strategies.core.paths import SLOTS
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.strategies.finetune import Finetune
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.conftest import coloured_images
from tests.strategies.core.noisy import Noisy
from tests.strategies.test_every_strategy import build

NOISY = "tests.strategies.core.noisy:Noisy"
RATE, NORM = 0.5, 0.05


class Clipped(Finetune):
    """Plain gradient descent whose gradients are clipped before each step."""

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        self.trained, self.norms, self.moves = parameters, list[float](), list[float]()
        return torch.optim.SGD(parameters, lr=RATE)

    def before_step(self) -> None:
        self.held = [value.detach().clone() for value in self.trained]
        norm = nn.utils.clip_grad_norm_(self.trained, NORM)
        self.norms.append(float(norm))

    def after_step(self) -> None:
        pairs = zip(self.held, self.trained, strict=True)
        squares = [(old - new).detach().double().square().sum() for old, new in pairs]
        self.moves.append(float(torch.stack(squares).sum().sqrt()))


def test_gradients_are_clipped_between_backward_and_the_step() -> None:
    trial, stream = Trial(Clipped), TinyStream()
    strategy: Any = trial.build()
    trial.train(strategy, stream)
    assert len(strategy.norms) == strategy.num_steps > 0
    assert max(strategy.norms) > NORM  # there was something to clip
    # A step of plain gradient descent goes as far as its gradient says, which nothing came after.
    expected = [RATE * min(norm, NORM) for norm in strategy.norms]
    assert strategy.moves == pytest.approx(expected, rel=1e-3)


@pytest.fixture
def calls() -> Iterator[list[tuple[bool, bool]]]:
    Noisy.calls.clear()
    yield Noisy.calls
    Noisy.calls.clear()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lae", {"epochs": 2, "freeze_epochs": 1, "blocks": 2}),
        ("mos", {"epochs": 1, "alignment_epochs": 1}),
        ("sema", {**SLOTS, "epochs": 1, "policy": "every_experience"}),
        (
            "sema",
            {**SLOTS, "epochs": 1, "threshold": 0.001, "signed": False, "descriptor_epochs": 1},
        ),
    ],
    ids=["lae", "mos", "sema", "sema scans"],
)
@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "computed"])
def test_a_frozen_module_that_draws_is_called_in_eval_mode(
    name: str,
    options: dict[str, Any],
    is_kept: bool,
    tiny_vit: AdaptedViT,
    make_stream: Callable[..., Any],
    calls: list[tuple[bool, bool]],
) -> None:
    kind = find_strategy(name)
    config = kind.config_class().override({"batch_size": 8, **options, "peft": NOISY})
    strategy = kind(backbone=tiny_vit, config=config, fixed_views=is_kept)
    benchmark = make_stream([[0, 1], [2, 3]])
    for experience in benchmark.train_stream:
        strategy.train(experience)
    strategy.eval(benchmark.test_stream)
    found = set(calls)
    assert (True, True) not in found
    assert {(True, False), (False, True)} <= found  # something was trained, something was frozen


def test_freeze_epochs_of_lae_learn_on_features_without_noise(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    class Compared(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
        """Computes each batch again, with modules that draw nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.same: list[tuple[str, bool]] = []

        def after_forward(self, strategy: Any, **_: Any) -> None:
            was_training = strategy.model.online.training
            strategy.model.online.eval()
            with torch.no_grad():
                quiet = strategy.model.heads(tiny_vit(strategy.mb_x, strategy.model.online))
            for part in strategy.model.online.modules():
                part.training = was_training and part.training
            if was_training:
                strategy.set_modes()
            self.same.append((strategy.phase, torch.allclose(quiet, strategy.mb_output)))

    compared = Compared()
    kind = find_strategy("lae")
    options = {"batch_size": 8, "epochs": 2, "freeze_epochs": 1, "peft": NOISY}
    strategy: AdapterStrategy = kind(
        backbone=tiny_vit, config=kind.config_class().override(options), plugins=[compared]
    )
    strategy.train(make_stream([[0, 1], [2, 3]]).train_stream)
    assert {same for phase, same in compared.same if phase == "freeze"} == {True}
    assert {same for phase, same in compared.same if phase == "train"} == {False}


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8])
@pytest.mark.parametrize("name", ["finetune", "simplecil"])
def test_labels_are_numbers_whatever_their_type(
    name: str, kind: torch.dtype, tiny_vit: AdaptedViT
) -> None:
    labels = [0, 1] * 6
    states = []
    for dtype in (torch.int64, kind):
        data = TensorDataset(coloured_images(labels, 0), torch.tensor(labels, dtype=dtype))
        given = AvalancheDataset([data], data_attributes=[DataAttribute(labels, "targets")])
        strategy = build(name, tiny_vit, epochs=1)
        strategy.train(benchmark_from_datasets(train=[given], test=[given]).train_stream)
        states.append(strategy.learned_state())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
