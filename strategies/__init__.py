"""The methods, by name. One file a method; a new one adds a line here.

Beside them stand Avalanche's own, as `avalanche:NAME`. A method is imported when it is asked for:
this table alone loads neither torch nor Avalanche.
"""

from collections.abc import Mapping
from inspect import isabstract
from typing import TYPE_CHECKING, Final

from cl_adapters.errors import InputError
from cl_adapters.plugins.registry import Family, Registry, check_call
from cl_adapters.plugins.tables import LazyTable, load

if TYPE_CHECKING:
    from cl_adapters.strategies.core.config import StrategyConfig
    from cl_adapters.strategies.core.strategy import AdapterStrategy

__all__ = ["STRATEGIES", "STRATEGY_NAMES", "find_strategy", "options_of"]

_AVALANCHE: Final = Family(
    "avalanche",
    names="cl_adapters.strategies.avalanche_methods:avalanche_names",
    find="cl_adapters.strategies.avalanche_methods:find_avalanche",
)


# What every strategy's constructor is called with.
_GIVEN: Final = (
    "backbone", "config", "seed", "precision", "fixed_views", "cache", "device", "evaluator",
)  # fmt: skip


def _accept(value: object) -> "type[AdapterStrategy]":
    base: type[AdapterStrategy] = load("cl_adapters.strategies.core.strategy:AdapterStrategy")
    if isinstance(value, type) and issubclass(value, base) and not isabstract(value):
        check_call(value, **dict.fromkeys(_GIVEN))
        return value
    raise InputError(
        f"must be a class derived from AdapterStrategy with `build_model`, got {value!r}"
    )


STRATEGY_NAMES: Final = Registry["type[AdapterStrategy]"](
    "strategy",
    "cl_adapters.strategies",
    {
        "acmap": "cl_adapters.strategies.acmap:ACMap",
        "aper": "cl_adapters.strategies.aper:APER",
        "cl_lora": "cl_adapters.strategies.cl_lora:CLLoRA",
        "coda_prompt": "cl_adapters.strategies.coda_prompt:CODAPrompt",
        "cofima": "cl_adapters.strategies.cofima:CoFiMA",
        "dualprompt": "cl_adapters.strategies.dualprompt:DualPrompt",
        "ease": "cl_adapters.strategies.ease:EASE",
        "fecam": "cl_adapters.strategies.fecam:FeCAM",
        "finetune": "cl_adapters.strategies.finetune:Finetune",
        "hide_prompt": "cl_adapters.strategies.hide_prompt:HiDePrompt",
        "inflora": "cl_adapters.strategies.inflora:InfLoRA",
        "joint": "cl_adapters.strategies.joint:Joint",
        "l2p": "cl_adapters.strategies.l2p:L2P",
        "lae": "cl_adapters.strategies.lae:LAE",
        "loranpac": "cl_adapters.strategies.loranpac:LoRanPAC",
        "mos": "cl_adapters.strategies.mos:MOS",
        "ranpac": "cl_adapters.strategies.ranpac:RanPAC",
        "sd_lora": "cl_adapters.strategies.sd_lora:SDLoRA",
        "sema": "cl_adapters.strategies.sema:SEMA",
        "simplecil": "cl_adapters.strategies.simplecil:SimpleCIL",
        "slca": "cl_adapters.strategies.slca:SLCA",
        "ssiat": "cl_adapters.strategies.ssiat:SSIAT",
        "tuna": "cl_adapters.strategies.tuna:TUNA",
    },
    _accept,
    family=_AVALANCHE,
)
STRATEGIES: "Final[LazyTable[type[AdapterStrategy]]]" = STRATEGY_NAMES.built_in


def find_strategy(name: str) -> "type[AdapterStrategy]":
    """Returns the strategy of a name: built in, `file.py:Name`, or of an installed package.

    Raises:
        InputError: If there is none; near names are suggested.
    """
    return STRATEGY_NAMES.find(name)


def options_of(strategy: str, fidelity: str, options: Mapping[str, object]) -> "StrategyConfig":
    """Returns the options of a strategy, those that are not named at their defaults.

    Args:
        strategy: Its name.
        fidelity: `official` for the defaults of its authors' code.
        options: Values by name.

    Raises:
        InputError: If the strategy or an option is unknown, or a value breaks its rule.
    """
    kind = find_strategy(strategy).config_class
    return (kind.official() if fidelity == "official" else kind()).override(options)
