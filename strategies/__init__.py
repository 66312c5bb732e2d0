"""The methods, by name. One file a method; a new one adds a line here."""

from typing import Final

from cl_adapters.errors import unknown_name
from cl_adapters.strategies.base import AdapterStrategy
from cl_adapters.strategies.finetune import Finetune
from cl_adapters.strategies.joint import Joint
from cl_adapters.strategies.lae import LAE
from cl_adapters.strategies.mos import MOS
from cl_adapters.strategies.sema import SEMA
from cl_adapters.strategies.simplecil import SimpleCIL

__all__ = ["STRATEGIES", "find_strategy"]

STRATEGIES: Final[dict[str, type[AdapterStrategy]]] = {
    "finetune": Finetune,
    "joint": Joint,
    "lae": LAE,
    "mos": MOS,
    "sema": SEMA,
    "simplecil": SimpleCIL,
}


def find_strategy(name: str) -> type[AdapterStrategy]:
    """Returns the strategy of a name.

    Raises:
        InputError: If there is none; near names are suggested.
    """
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    return STRATEGIES[name]
