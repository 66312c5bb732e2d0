"""SEMA on tiny streams, as its tests train it, and a detector that fires when they say so."""

from collections.abc import Callable
from typing import Any, ClassVar, Final

import torch
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor

from cl_adapters.shift import Detector, Verdict
from cl_adapters.strategies.core.paths import SLOTS
from cl_adapters.strategies.sema import SEMA, SEMAConfig
from cl_adapters.vit.adapted_vit import AdaptedViT

TWO: Final = [[0, 1], [2, 3]]


class Scripted(Detector):
    """Fires where the test says so; counts what it is asked."""

    min_samples: ClassVar[int] = 4
    fires: ClassVar[Callable[[int], bool]] = lambda _: False  # by number of the question
    asked: ClassVar[list[tuple[int, int]]] = []  # (which detector, images)
    made: ClassVar[int] = 0

    def __init__(self, num_features: int, **_: Any) -> None:
        super().__init__(num_features)
        self.register_buffer("fitted", torch.zeros(()))
        self.number = Scripted.made
        Scripted.made += 1

    def fit(self, features: Tensor) -> None:
        self.fitted = torch.tensor(float(len(features.reshape(-1, features.shape[-1]))))

    def check(self, features: Tensor) -> Verdict:
        Scripted.asked.append((self.number, len(features)))
        return Verdict(1.0 if Scripted.fires(len(Scripted.asked) - 1) else 0.0, 0.5)

    def reset(self) -> None:
        self.fitted = torch.zeros(())


def build(vit: AdaptedViT, *plugins: SupervisedPlugin, **options: Any) -> SEMA:
    official = options.pop("official", False)
    config = SEMAConfig.official() if official else SEMAConfig()
    fast = {"batch_size": 8, "epochs": 1, "descriptor_epochs": 2, **SLOTS}
    return SEMA(
        backbone=vit,
        config=config.override({**fast, **options}),
        fixed_views=options.pop("fixed_views", True),
        plugins=list(plugins),
        evaluator=EvaluationPlugin(loggers=[BaseLogger()]),
    )


def adapters_by_block(strategy: SEMA) -> dict[int, int]:
    return {block: len(strategy.model.slot(block)) for block in strategy.model.expandable}


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: torch.nn.Module) -> set[str]:
    after = module.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


class Epochs(SupervisedPlugin):
    """Notes learning rates, phases, and which parameters an epoch may change."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []
        self.trainable: list[set[str]] = []

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        self.rates.append(strategy.optimizer.param_groups[0]["lr"])
        self.trainable.append(
            {name for name, value in strategy.model.named_parameters() if value.requires_grad}
        )
