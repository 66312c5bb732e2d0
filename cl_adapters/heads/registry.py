"""TEMP"""

from collections.abc import Callable, Collection
from typing import Final
from cl_adapters.errors import InputError, unknown_name
from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.heads.prototypes import PrototypeHead
from cl_adapters.heads.ridge import RidgeHead

ClosedHead = PrototypeHead | LinearDiscriminant | RidgeHead
TRAINED_HEADS: Final[dict[str, Callable[..., ExperienceHeads]]] = {
    "linear": ExperienceHeads,
    "cosine": ExperienceHeads,
}
CLOSED_HEADS: Final[dict[str, Callable[..., ClosedHead]]] = {
    "prototype": PrototypeHead,
    "discriminant": LinearDiscriminant,
    "ridge": RidgeHead,
}


def build_trained_head(
    name: str,
    num_features: int,
    *,
    init_std: float | None = 0.001,
    scale: float = 10.0,
    learn_scale: bool = False,
) -> ExperienceHeads:
    return ExperienceHeads(
        num_features, init_std=init_std, cosine_scale=scale if name == "cosine" else None
    )


def build_closed_head(name: str, num_features: int, *, scale: float) -> ClosedHead:
    if name == "ridge":
        return RidgeHead(num_features, scale=scale)
    if name == "discriminant":
        return LinearDiscriminant(num_features, unit_length=True)
    return PrototypeHead(num_features, scale=scale)


def check_head(name: str, fitting: Collection[str], reason: str) -> str:
    everything = [*TRAINED_HEADS, *CLOSED_HEADS]
    if name in everything and name not in fitting:
        raise InputError(f"`head` must be one of {', '.join(fitting)}, got {name!r}: {reason}")
    if name not in fitting:
        raise unknown_name("head", name, fitting)
    return name
