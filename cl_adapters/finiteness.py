"""The guard against numbers that are none: weights that are loaded, and what is computed with them.

A tensor on the CPU is looked at once. A GPU would have to finish its work before it answers, so
there a mark is left on the device, and asked for together with others.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from cl_adapters.errors import InputError, RunError

__all__ = ["NotFiniteError", "mark", "refuse_not_finite", "refuse_odd_weights"]


class NotFiniteError(RunError):
    """Raised at the first feature, loss or output that is no finite number.

    Attributes:
        placed: Whether the sentence says where in a run that was.
    """

    def __init__(self, message: str, *, placed: bool = False) -> None:
        super().__init__(message)
        self.placed = placed


def mark(values: Tensor) -> Tensor:
    """Returns a scalar where `values` lie: 0 if all are finite, else one of those that are not.

    Example:
        >>> mark(torch.tensor([1.0, -2.0])).item(), mark(torch.tensor([1.0, torch.nan])).item()
        (0.0, nan)
    """
    odd = values.detach()
    return torch.where(torch.isfinite(odd), 0, odd).sum().float()


def refuse_not_finite(values: Tensor, what: str) -> None:
    """Raises `NotFiniteError` unless all values are finite; on a GPU its work is waited for."""
    if not bool(torch.isfinite(values).all()):
        raise NotFiniteError(f"{what} must be finite, got {mark(values).item():g}")


def refuse_odd_weights(state: Mapping[str, Tensor], where: str) -> None:
    """Refuses weights that are not plain floating-point numbers, each of them finite.

    Args:
        state: Tensors by name.
        where: What holds them, as a sentence begins.

    Raises:
        InputError: At the first that is none: names it, and what it is.
    """
    for name, value in state.items():
        kind = _odd_kind(value)
        if kind:
            raise InputError(
                f"{where} must hold plain floating-point tensors, got {kind} in tensor {name!r}"
            )
        numbers = value.detach().float()  # as the network has them
        # A sum of finite numbers can be too large, but no other sum is a finite number.
        if bool(torch.isfinite(numbers.sum())) or bool(torch.isfinite(numbers).all()):
            continue
        count = int((~torch.isfinite(numbers)).sum())
        raise InputError(
            f"{where} must be finite, got {mark(numbers).item():g} in tensor {name!r}, where "
            f"{count} of {value.numel()} numbers are not"
        )


def _odd_kind(value: Tensor) -> str:
    """Says what a tensor is that is no plain floating-point one; empty if it is."""
    dtype = str(value.dtype).removeprefix("torch.")
    kinds = {
        "a tensor without data (device meta)": value.is_meta,
        f"quantised numbers ({dtype})": value.is_quantized,
        f"a sparse tensor ({str(value.layout).removeprefix('torch.')})": (
            value.layout is not torch.strided
        ),
        f"numbers of type {dtype}": not value.is_floating_point(),
        "one number without dimensions": value.ndim == 0,
    }
    return next((kind for kind, holds in kinds.items() if holds), "")
