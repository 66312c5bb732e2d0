"""What PEFT modules are shown that set themselves from images, before training and after it."""

from typing import Any, Final

from torch import Tensor, nn

from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.strategies.core.avalanche_types import AvalancheDataset
from cl_adapters.strategies.core.features import Features
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.calibration import calibrate
from cl_adapters.vit.site_gradients import awaiting_gradients

__all__ = ["GRADIENT_IMAGES", "gradient_batches", "sets_of", "show_inputs"]

GRADIENT_IMAGES: Final = 256  # at most, since each takes a pass forth and back


def sets_of(model: nn.Module) -> list[AdapterSet]:
    """Returns the sets of plain modules in a model."""
    return [each for each in model.modules() if isinstance(each, AdapterSet)]


def show_inputs(
    model: nn.Module, backbone: AdaptedViT, features: Features, data: AvalancheDataset
) -> None:
    """Shows modules of a model that ask for it what images bring to their slots."""
    for each in sets_of(model):
        calibrate(backbone, each, (images for images, _ in features.plain_images(data)))


def gradient_batches(
    model: nn.Module, features: Features, data: AvalancheDataset
) -> list[tuple[Tensor, Tensor]]:
    """Returns images and labels for the modules of a model that await a gradient; none if none do.

    They stand at even distances in the data, as where classes follow each other the first are no
    sample, and are not augmented.
    """
    if not any(True for each in sets_of(model) for _ in awaiting_gradients(each)):
        return []
    whole: Any = data
    count = min(GRADIENT_IMAGES, len(data))
    chosen = whole.subset([number * len(data) // count for number in range(count)])
    return list(features.plain_images(chosen))
