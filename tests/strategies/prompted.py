"""What the tests of prompt methods share."""

from types import SimpleNamespace
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor

from cl_adapters.strategies import find_strategy
from cl_adapters.vit.adapted_vit import AdaptedViT

TWO = [[2, 0], [1, 3]]


class Watch(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
    """Keeps the learned state before each step, its batch, and how long its gradients were."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[int, dict[str, Tensor], Tensor, Tensor]] = []
        self.lengths: list[float] = []
        self.rates: list[float] = []

    def before_forward(self, strategy: Any, **_: Any) -> None:
        state = {name: value.clone() for name, value in strategy.learned_state().items()}
        experience = len(strategy.classes_by_experience) - 1
        self.steps.append((experience, state, strategy.mb_x.clone(), strategy.mb_y.clone()))

    def after_update(self, strategy: Any, **_: Any) -> None:
        groups = strategy.optimizer.param_groups
        found = [value.grad for group in groups for value in group["params"]]
        squares = [float(each.square().sum()) for each in found if each is not None]
        self.lengths.append(sum(squares) ** 0.5)
        self.rates.append(groups[0]["lr"])


class Endless:
    """An experience of a stream that does not say how many it has."""

    origin_stream = SimpleNamespace(name="train")

    def __init__(self, experience: Any) -> None:
        self._experience = experience

    def __getattr__(self, name: str) -> Any:
        return getattr(self._experience, name)


def build(name: str, vit: AdaptedViT, *plugins: SupervisedPlugin, **options: Any) -> Any:
    """Returns a strategy that is quick to train."""
    kind = find_strategy(name)
    return kind(
        backbone=vit,
        config=kind.config_class().override({"batch_size": 8, "epochs": 1, **options}),
        plugins=list(plugins),
        evaluator=EvaluationPlugin(loggers=[BaseLogger()]),
    )


def images_of(experience: Any) -> tuple[Tensor, Tensor]:
    rows = [experience.dataset[index] for index in range(len(experience.dataset))]
    return torch.stack([row[0] for row in rows]), torch.tensor([row[1] for row in rows])


def tokens_after_blocks(vit: AdaptedViT, ask: Any) -> list[int]:
    """Returns how many tokens leave each block while something is asked."""
    counts: list[int] = []
    hooks = [
        block.ls2.register_forward_hook(lambda _, __, out: counts.append(out.shape[1]))
        for block in vit.vit.blocks
    ]
    ask()
    for hook in hooks:
        hook.remove()
    return counts
