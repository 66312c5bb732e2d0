"""Which cases of a test run by default, and which with `make slow` alone."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest

__all__ = ["by_default"]


def by_default(cases: Iterable[Any], kept: Collection[Any]) -> list[Any]:
    """Returns the cases of a test, of which those not in `kept` are slow.

    A behaviour is shown by default by the cases in which it could break differently.
    """
    cases = list(cases)
    lost = [each for each in kept if each not in cases]
    assert not lost, f"no case is {lost}"
    return [
        each
        if each in kept
        else pytest.param(*(each if isinstance(each, tuple) else (each,)), marks=pytest.mark.slow)
        for each in cases
    ]
