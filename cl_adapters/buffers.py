"""Buffers that grow: with classes, with sets, with whatever comes."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

__all__ = ["GrowingBuffers", "KeptTensors", "count_members", "count_numbers", "learned_sizes"]


class GrowingBuffers(nn.Module):
    """A module whose buffers take the size that a state has; each stays on its device.

    torch itself refuses a state whose tensors have another shape. This is the one place that uses
    its private hook.

    Example:
        >>> class Sums(GrowingBuffers):
        ...     def __init__(self, rows: int) -> None:
        ...         super().__init__()
        ...         self.register_buffer("sums", torch.ones(rows, 2))
        >>> small, large = Sums(0), Sums(3)
        >>> small.load_state_dict(large.state_dict())
        <All keys matched successfully>
        >>> small.sums.shape
        torch.Size([3, 2])
    """

    # Whether the sizes follow from what was learned, not from the classes that were announced: a
    # state may then have any.
    grows_by_learning: ClassVar[bool] = False

    def buffers_loaded(self) -> None:
        """Called once a state has been loaded: forgets what was computed from the one before."""

    def surplus_numbers(self) -> int:
        """Returns how many numbers more its buffers stand for than they hold: bits in bytes."""
        return 0

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
        for name, value in self.named_buffers(recurse=False):
            stored = state.get(f"{prefix}{name}")
            if stored is not None:
                # A new tensor, so that whoever holds the old one keeps it as it is.
                setattr(self, name, stored.new_zeros(stored.shape, device=value.device))
        super()._load_from_state_dict(state, prefix, *rest)
        self.buffers_loaded()


class KeptTensors(GrowingBuffers):
    """Tensors by name that are part of the state, whatever shape they take.

    Args:
        names: Of the tensors, which are empty at first; without a dot.

    Example:
        >>> kept = KeptTensors(["weight"])
        >>> kept.keep({"weight": torch.ones(2, 3)})
        >>> kept["weight"].shape
        torch.Size([2, 3])
    """

    grows_by_learning = True

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        for name in names:
            self.register_buffer(name, torch.zeros(0))

    def keep(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes tensors in place of those of the same names."""
        for name, value in tensors.items():
            setattr(self, name, value.detach())

    def __getitem__(self, name: str) -> Tensor:
        """Returns a tensor."""
        found: Tensor = self.get_buffer(name)
        return found


def count_numbers(module: nn.Module, state: Mapping[str, Tensor]) -> int:
    """Returns how many numbers a state of a module holds; those in bits count one each."""
    growing = (part for part in module.modules() if isinstance(part, GrowingBuffers))
    surplus = sum(part.surplus_numbers() for part in growing)
    return surplus + sum(value.numel() for value in state.values())


def count_members(state: Mapping[str, Tensor], name: str) -> int:
    """Returns how many modules of a list a state holds.

    Args:
        state: Of the list or of what it is a part of.
        name: Of the list in the state.

    Example:
        >>> held = torch.zeros(1)
        >>> count_members({"heads.0.sums": held, "heads.1.sums": held, "active": held}, "heads")
        2
    """
    start = f"{name}."
    return len({key.removeprefix(start).split(".")[0] for key in state if key.startswith(start)})


def learned_sizes(module: nn.Module) -> set[str]:
    """Returns the names of a module's buffers whose size is part of what it learned."""
    return {
        f"{name}.{buffer}" if name else buffer
        for name, part in module.named_modules()
        if isinstance(part, GrowingBuffers) and part.grows_by_learning
        for buffer, _ in part.named_buffers(recurse=False)
    }
