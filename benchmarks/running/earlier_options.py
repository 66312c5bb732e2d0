"""Options of strategies under the names that they had before, rewritten before a recipe is known.

So an old command, recipe or grid is the run that it is under today's names.
"""

import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from cl_adapters.errors import EarlierNameWarning
from cl_adapters.strategies import STRATEGY_NAMES, find_strategy

__all__ = ["EARLIER_OPTIONS", "current_option", "renamed"]

# What an option was called -> what it is called. A strategy that has an option of the earlier name
# keeps it: a plugin of somebody's may.
EARLIER_OPTIONS: Final[Mapping[str, str]] = {
    "classifier": "head",
    "guess": "task_predictor",
    "memo_megabytes": "cache_megabytes",
    "pet": "peft",
    "width": "size",
}


def current_option(key: str, known: Collection[str]) -> str:
    """Returns an option's key under today's name, and says so once where it had another.

    Args:
        key: An option, or `group.part`.
        known: Names of the options that the strategy has.
    """
    name, dot, part = key.partition(".")
    new = EARLIER_OPTIONS.get(name)
    if new is None or name in known or new not in known:
        return key
    warnings.warn(f"option `{name}` is now called `{new}`", EarlierNameWarning, stacklevel=2)
    return f"{new}{dot}{part}"


def renamed(strategy: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a strategy's options under today's names.

    A name that is said twice counts under today's.
    """
    if not _may_be_earlier(options) or strategy not in STRATEGY_NAMES:
        return dict(options)
    known = find_strategy(strategy).config_class.model_fields
    new = {current_option(name, known): value for name, value in options.items()}
    return {**new, **{name: value for name, value in options.items() if name in known}}


def _may_be_earlier(names: Iterable[str]) -> bool:
    return not EARLIER_OPTIONS.keys().isdisjoint(name.partition(".")[0] for name in names)
