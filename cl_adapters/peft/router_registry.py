"""Routers by name. One file a family; a new one adds a line here.

A router is imported when it is asked for.
"""

from collections.abc import Mapping
from typing import Final

from cl_adapters.peft.router import Router
from cl_adapters.plugins.registry import Registry, derived_from

__all__ = ["ROUTERS", "ROUTER_NAMES", "Router", "build_router", "find_router"]


ROUTER_NAMES: Final = Registry[type[Router]](
    "router",
    "cl_adapters.routers",
    {
        "learned": "cl_adapters.peft.column_routers:LearnedRouter",
        "learned_null": "cl_adapters.peft.column_routers:LearnedNullRouter",
        "discriminant": "cl_adapters.peft.told_routers:DiscriminantRouter",
        "memory": "cl_adapters.peft.told_routers:MemoryRouter",
        "poly": "cl_adapters.peft.poly:PolyRouter",
        "scalearn": "cl_adapters.peft.scalearn:ScaLearnRouter",
        "scalearn_uniform": "cl_adapters.peft.scalearn:UniformScaLearnRouter",
        "scalearn_shared": "cl_adapters.peft.scalearn:SharedScaLearnRouter",
        "scalearn_uniform_shared": "cl_adapters.peft.scalearn:UniformSharedScaLearnRouter",
    },
    derived_from(Router),  # type: ignore[type-abstract] # none is made
)
ROUTERS: Final = ROUTER_NAMES.built_in


def find_router(name: str) -> type[Router]:
    """Returns the router of a name: built in, `file.py:Name`, or of an installed package.

    Raises:
        InputError: If there is none; near names are suggested.
    """
    return ROUTER_NAMES.find(name)


def build_router(name: str, embed_dim: int, options: Mapping[str, object] | None = None) -> Router:
    """Returns a router without an adapter yet.

    Args:
        name: As `find_router` takes it.
        embed_dim: D, width of the stream.
        options: Those that the router does not take are left out.

    Raises:
        InputError: If there is none of the name, or an option breaks a rule.
    """
    kind = find_router(name)
    taken = {key: value for key, value in (options or {}).items() if key in kind.options}
    return kind(embed_dim, **taken)
