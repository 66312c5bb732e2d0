"""Options of strategies under the names that they had before, rewritten before a recipe is known.

So an old command, recipe or grid is the run that it is under today's names.
"""

import warnings
from collections.abc import Collection, Mapping
from typing import Any, Final

from cl_adapters.errors import EarlierNameWarning
from cl_adapters.records.upgrade import OPTION_NAMES
from cl_adapters.strategies import STRATEGY_NAMES, find_strategy

__all__ = ["EARLIER_OPTIONS", "current_option", "has_option", "renamed"]

# What an option was called -> what it is called. A strategy that has an option of the earlier name
# keeps it: a plugin of somebody's may.
EARLIER_OPTIONS: Final[Mapping[str, str]] = {
    old: new for names in OPTION_NAMES.values() for old, new in names.items()
}


def current_option(key: str, known: Collection[str]) -> str:
    """Returns an option's key under today's name, and says so where it had another.

    Args:
        key: An option, or `group.part`.
        known: Names of the options that the strategy has.
    """
    new = _current(key, known)
    if new != key:
        old, name = key.partition(".")[0], new.partition(".")[0]
        warnings.warn(f"option `{old}` is now called `{name}`", EarlierNameWarning, stacklevel=2)
    return new


def has_option(key: str, known: Collection[str]) -> bool:
    """Says whether a strategy has an option, under today's name or an earlier one."""
    return _current(key, known).partition(".")[0] in known


def renamed(strategy: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a strategy's options under today's names; what has both keeps today's value."""
    if EARLIER_OPTIONS.keys().isdisjoint(options) or strategy not in STRATEGY_NAMES:
        return dict(options)
    known = find_strategy(strategy).config_class.model_fields
    new = {current_option(name, known): value for name, value in options.items()}
    return {**new, **{name: value for name, value in options.items() if name in known}}


def _current(key: str, known: Collection[str]) -> str:
    name, dot, part = key.partition(".")
    new = EARLIER_OPTIONS.get(name)
    is_earlier = new is not None and name not in known and new in known
    return f"{new}{dot}{part}" if is_earlier else key
