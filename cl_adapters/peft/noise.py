"""What PEFT modules draw while they are trained, from a generator that is handed to them.

A module that draws has an attribute `noise`, a `torch.Generator` on its parameters' device or None,
and draws from it in train mode only; with None it draws from torch's global source. `hand_out`
gives all modules of a set or a stack one generator; whoever trains keeps its state.

A frozen module never draws: its noise would reach detectors, routers, statistics and caches. So
whoever trains calls it in eval mode (`cl_adapters/peft/frozen.py`), and the modules here ask
`draws` besides, which says no where no gradient of theirs is taken.
"""

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PEFT_NOISE", "PeftNoise", "drawing", "draws", "dropout", "hand_out"]

PEFT_NOISE: Final = "peft"  # name of the generator in a checkpoint


def draws(module: nn.Module, parameter: Tensor) -> bool:
    """Says whether a module may draw: in train mode, where gradients of its own are taken.

    Args:
        module: The module.
        parameter: One of those that it computes with, which may be handed in from a stack.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> draws(layer, layer.weight)
        True
        >>> draws(layer.requires_grad_(False), layer.weight)
        False
    """
    return module.training and torch.is_grad_enabled() and parameter.requires_grad


def hand_out(module: nn.Module, noise: torch.Generator | None) -> None:
    """Gives every module that draws, in a module or below it, the generator that it draws from."""
    for each in drawing(module):
        vars(each)["noise"] = noise


def drawing(module: nn.Module) -> Iterator[Any]:
    """Yields every module with a `noise`, a module itself or below it."""
    for each in module.modules():
        # A stranger's `noise` may be a tensor, which is left alone.
        if isinstance(getattr(each, "noise", 0), torch.Generator | None):
            yield each


class PeftNoise:
    """What PEFT modules draw from that are handed nothing else: a generator for each experience.

    Attributes:
        source: That of the current experience; None before the first.
    """

    def __init__(self) -> None:
        self.source: torch.Generator | None = None

    def renew(self, model: nn.Module, source: torch.Generator) -> None:
        """Begins an experience: its generator takes the place of the last one and of none."""
        last, self.source = self.source, source
        for each in drawing(model):
            if each.noise is None or each.noise is last:
                vars(each)["noise"] = source

    def hand_out(self, model: nn.Module) -> None:
        """Gives the generator to modules that are new and have none."""
        for each in drawing(model):
            if each.noise is None:
                vars(each)["noise"] = self.source

    def sources(self, model: nn.Module) -> dict[str, torch.Generator]:
        """Returns the generator by name, where a module draws from it."""
        if self.source is None or all(each.noise is not self.source for each in drawing(model)):
            return {}
        return {PEFT_NOISE: self.source}


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
