"""The methods, by name. One file a method; a new one adds a line here.

Beside them stand Avalanche's own, as `avalanche:NAME`.
"""

from inspect import isabstract
from typing import Final

from cl_adapters.errors import InputError
from cl_adapters.plugins.registry import Registry
from cl_adapters.strategies.avalanche_methods import PREFIX, avalanche_names, find_avalanche
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.strategies.finetune import Finetune
from cl_adapters.strategies.joint import Joint
from cl_adapters.strategies.lae import LAE
from cl_adapters.strategies.mos import MOS
from cl_adapters.strategies.sema import SEMA
from cl_adapters.strategies.simplecil import SimpleCIL

__all__ = ["STRATEGIES", "STRATEGY_NAMES", "find_strategy"]

STRATEGIES: Final[dict[str, type[AdapterStrategy]]] = {
    "finetune": Finetune,
    "joint": Joint,
    "lae": LAE,
    "mos": MOS,
    "sema": SEMA,
    "simplecil": SimpleCIL,
}


def _accept(value: object) -> type[AdapterStrategy]:
    if isinstance(value, type) and issubclass(value, AdapterStrategy) and not isabstract(value):
        return value
    raise InputError(
        f"must be a class derived from AdapterStrategy with `build_model`, got {value!r}"
    )


_BUILT_IN: Final = {**STRATEGIES, **{name: find_avalanche(name) for name in avalanche_names()}}
STRATEGY_NAMES: Final = Registry("strategy", "cl_adapters.strategies", _BUILT_IN, _accept)


def find_strategy(name: str) -> type[AdapterStrategy]:
    """Returns the strategy of a name: built in, `file.py:Name`, or of an installed package.

    Raises:
        InputError: If there is none; near names are suggested.
    """
    return find_avalanche(name) if name.startswith(PREFIX) else STRATEGY_NAMES.find(name)
