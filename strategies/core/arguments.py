"""What the constructor of every strategy takes, as types."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

import torch
from avalanche.training.plugins import EvaluationPlugin

from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.strategies.core.views import Views

__all__ = ["StrategyArgs", "TemplateArgs"]


class TemplateArgs(TypedDict, total=False):
    """Arguments that go on to Avalanche's `SupervisedTemplate`, with its meaning and defaults."""

    device: str | torch.device
    plugins: Sequence[Any] | None
    evaluator: EvaluationPlugin | Callable[[], EvaluationPlugin]
    eval_mb_size: int
    eval_every: int


class StrategyArgs(TemplateArgs, total=False):
    """Arguments of every strategy but the backbone and the config; see `AdapterStrategy`."""

    seed: int
    precision: Literal["fp32", "bf16"]
    fixed_views: bool | Views
    cache: FeatureCache | None
