"""What the studies of growth share: streams whose changes are known, and features of images."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cl_adapters.benchmarks.running.prepare import PreparedRun
from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet, Slots

__all__ = ["Modules", "features_of", "known_domains"]

Modules = Mapping[tuple[Slots, int], nn.Module]


def known_domains(prepared: PreparedRun) -> list[str]:
    """Returns the domain of each experience.

    Raises:
        InputError: If the stream's domains are not known.
    """
    domains = [each.name for each in prepared.plan.domains]
    if not domains:
        raise InputError("the stream must have domains that are known, or data sets, got none")
    return domains


@torch.no_grad()
def features_of(strategy: Any, images: Tensor, modules: Modules) -> Tensor:  # noqa: ANN401
    """Returns features (N, D) of images (N, 3, S, S) under some modules, frozen ones without any.

    Args:
        strategy: Whose network and precision to compute in.
        images: The images.
        modules: By slot and block.
    """
    backbone, adapters = strategy.backbone, AdapterSet(dict(modules))
    with strategy.features.autocast():
        found = [
            backbone.features(backbone.run(backbone.tokens(each), adapters=adapters)).float()
            for each in torch.split(images, 256)
        ]
    return torch.cat(found)
