"""A strategy that measures nothing by itself: whoever runs it computes numbers from its answers."""

from typing import Any

from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin

from cl_adapters.strategies.core.strategy import AdapterStrategy

__all__ = ["silent"]


def silent(kind: type[AdapterStrategy], **arguments: Any) -> AdapterStrategy:  # noqa: ANN401
    """Returns a strategy without Avalanche's evaluator, which takes time each step even if unasked.

    Args:
        kind: Its class.
        **arguments: Of its constructor.
    """
    evaluator = EvaluationPlugin(loggers=[BaseLogger()], collect_all=False)
    strategy = kind(evaluator=evaluator, **arguments)
    strategy.remove_plugin(evaluator)
    return strategy
