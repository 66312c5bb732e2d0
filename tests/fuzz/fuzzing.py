"""Calls a function with what hypothesis draws, so often and always the same."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

__all__ = ["fuzz"]


def fuzz(act: Callable[..., None], examples: int, *drawn: st.SearchStrategy[Any]) -> None:
    """Calls `act` with as many examples; the first that fails is shown as it was drawn."""

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],  # making a failure small takes minutes where a command is called
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(*drawn))
    def tried(values: tuple[Any, ...]) -> None:
        act(*values)

    tried()
