"""A pass over images for PEFT modules that set themselves from what enters their slots."""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["Calibrated", "calibrate"]


@runtime_checkable
class Calibrated(Protocol):
    """What a PEFT module answers that wants to see data before it is trained, or after.

    Both are optional together: a module without them is left alone.
    """

    def observe(self, *inputs: Tensor, **slot: str) -> None:
        """Takes note of a batch.

        Args:
            inputs: What the module is called with, such as (B, N, D).
            slot: `slot=...` for a module that fills several.
        """

    def calibrate(self) -> None:
        """Sets the module from what it has seen, and forgets that."""


@torch.no_grad()
def calibrate(backbone: AdaptedViT, adapters: AdapterSet, batches: Iterable[Tensor]) -> None:
    """Shows modules of a set what enters their slots, then lets them set themselves.

    All modules are shown the network as it is before any of them is set. Images are not counted as
    passes, since their features are not computed. Without a module that asks, nothing is read.

    Args:
        backbone: The frozen network.
        adapters: Its modules; those that are `Calibrated` take part.
        batches: Images (B, C, S, S), on the network's device.
    """
    asking = [
        each for each in adapters.modules() if each is not adapters and isinstance(each, Calibrated)
    ]
    if not asking:
        return
    hooks = [each.register_forward_pre_hook(_show, with_kwargs=True) for each in asking]
    try:
        for images in batches:
            backbone.run(backbone.tokens(images), 0, adapters.stop_block, adapters=adapters)
    finally:
        for hook in hooks:
            hook.remove()
    for each in asking:
        each.calibrate()


def _show(module: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Any]) -> None:
    if isinstance(module, Calibrated):
        module.observe(*inputs, **options)
