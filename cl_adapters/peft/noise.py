"""What PEFT modules draw while they are trained, from a generator that is handed to them.

A module that draws has an attribute `noise`, a `torch.Generator` on its parameters' device or None,
and draws from it in train mode only; with None it draws from torch's global source. `hand_out`
gives all modules of a set or a stack one generator; whoever trains keeps its state.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["dropout", "hand_out"]


def hand_out(module: nn.Module, noise: torch.Generator | None) -> None:
    """Gives every module that draws, in a module or below it, the generator that it draws from."""
    for each in module.modules():
        # A stranger's `noise` may be a tensor, which is left alone.
        if isinstance(getattr(each, "noise", 0), torch.Generator | None):
            vars(each)["noise"] = noise


def dropout(hidden: Tensor, share: float, noise: torch.Generator | None) -> Tensor:
    """Drops a share of the numbers, and raises the others so that the mean stays.

    Args:
        hidden: The numbers.
        share: Above 0, below 1.
        noise: Source of what is dropped; None takes torch's global one.
    """
    if noise is None:
        return functional.dropout(hidden, share)
    # torch's own takes no generator.
    kept = torch.empty_like(hidden).bernoulli_(1 - share, generator=noise)
    return hidden * kept / (1 - share)
