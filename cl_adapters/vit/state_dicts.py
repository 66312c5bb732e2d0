"""Which tensors of a file are a network's: under which entry, behind which prefix.

Trainers write a network's state beside other things (`{"state_dict": ..., "epoch": 3}`) and under
names that begin with where it stood (`module.`, `model.backbone.`). Where there is one reading, it
is taken and told; where there are several, or none, a sentence names what is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from cl_adapters.errors import InputError, listed

__all__ = ["SHOWN", "FoundState", "find_state"]

# What every ViT in timm's layout has; what stands before it is the prefix of all.
_ANCHOR: Final = "patch_embed.proj.weight"
SHOWN: Final = 4  # names of tensors or entries in a sentence


@dataclass(frozen=True)
class FoundState:
    """A network's tensors in a file.

    Attributes:
        tensors: By name, without the prefix.
        entry: The entry of the file that holds them; empty if they are the file.
        prefix: What all of their names began with.
        others: Names of what lies beside them there: no tensor, or without that prefix.
    """

    tensors: dict[str, Tensor]
    entry: str = ""
    prefix: str = ""
    others: tuple[str, ...] = ()

    def describe(self) -> str:
        """Returns how the file was read, as the end of a sentence; empty if there was no choice."""
        parts = [f"from its entry {self.entry!r}"] if self.entry else []
        parts += [f"without the prefix {self.prefix!r}"] if self.prefix else []
        parts += [f"leaving out {listed(self.others, SHOWN)}"] if self.others else []
        return ", ".join(parts)


def find_state(held: Any, where: str) -> FoundState:  # noqa: ANN401 - whatever a file held
    """Finds the one network in what a file held.

    Args:
        held: What was read.
        where: The file, as a sentence begins.

    Raises:
        InputError: If there is none, or more than one; names what is there.
    """
    if not isinstance(held, Mapping):
        raise InputError(f"{where} must be a state dict of tensors, got {type(held).__name__}")
    if _prefixes(held):
        return _without_prefix(held, "", where)
    nested = {key: value for key, value in held.items() if isinstance(value, Mapping)}
    fitting = [key for key, value in nested.items() if _prefixes(value)]
    if not fitting and not any(isinstance(value, Tensor) for value in held.values()):
        # A layout that is not timm's; whether it can be converted is said later.
        fitting = [key for key, value in nested.items() if value and _is_state(value)]
    if len(fitting) > 1:
        raise InputError(
            f"{where} must hold one network, got one in each of the entries "
            f"{listed(fitting, SHOWN)}: keep the one that is meant, as in "
            f"torch.save(held[{fitting[0]!r}], 'weights.pt')"
        )
    if fitting:
        return _without_prefix(nested[fitting[0]], str(fitting[0]), where)
    if not held or not _is_state(held):
        odd = [f"{key!r} ({type(each).__name__})" for key, each in list(held.items())[:SHOWN]]
        more = f" and {len(held) - SHOWN} more" if len(held) > SHOWN else ""
        found = f" with {', '.join(odd)}{more}" if odd else " without a tensor"
        raise InputError(f"{where} must be a state dict of tensors, got dict{found}")
    return _without_prefix(held, "", where)


def _prefixes(held: Mapping[Any, Any]) -> list[str]:
    """Returns what stands before the first layer's weights, for each network there."""
    found = (key for key, value in held.items() if isinstance(value, Tensor))
    found = (key for key in found if isinstance(key, str))
    ends = (key for key in found if key == _ANCHOR or key.endswith(f".{_ANCHOR}"))
    return sorted(key.removesuffix(_ANCHOR) for key in ends)


def _is_state(held: Mapping[Any, Any]) -> bool:
    return all(isinstance(value, Tensor) for value in held.values())


def _without_prefix(held: Mapping[Any, Any], entry: str, where: str) -> FoundState:
    prefixes = _prefixes(held)
    if len(prefixes) > 1 and "" not in prefixes:
        raise InputError(
            f"{where} must hold one network, got one behind each of the prefixes "
            f"{listed(prefixes, SHOWN)}: keep those of the one that is meant, in a file of their "
            "own"
        )
    prefix = prefixes[0] if prefixes and "" not in prefixes else ""
    inside: dict[str, Tensor] = {}
    others: list[str] = []
    for key, value in held.items():
        if isinstance(value, Tensor) and not isinstance(key, str):
            raise InputError(f"{where} must name each tensor by text, got the key {key!r}")
        if isinstance(value, Tensor) and key.startswith(prefix):
            inside[key.removeprefix(prefix)] = value
        else:
            others.append(str(key))
    return FoundState(inside, entry, prefix, tuple(others))
