"""What PEFT modules are shown that set themselves from images, before training and after it."""

from typing import Any, Final

from torch import Tensor, nn

from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.stack import AdapterStack
from cl_adapters.strategies.core.avalanche_types import AvalancheDataset
from cl_adapters.strategies.core.event_log import EventLog
from cl_adapters.strategies.core.features import Features
from cl_adapters.vit.calibration import calibrate
from cl_adapters.vit.site_gradients import (
    GradientCalibrated,
    awaiting_gradients,
    calibrate_by_gradient,
)

__all__ = ["GRADIENT_IMAGES", "gradient_batches", "show_gradients", "show_inputs"]

GRADIENT_IMAGES: Final = 256  # at most, since each takes a pass forth and back


def show_inputs(model: nn.Module, features: Features, data: AvalancheDataset) -> None:
    """Shows modules of a model that ask for it what images bring to their slots."""
    for each in _sets(model):
        calibrate(features.backbone, each, (images for images, _ in features.plain_images(data)))


def show_gradients(
    model: nn.Module, features: Features, data: AvalancheDataset, events: EventLog
) -> None:
    """Shows modules of a model that still await it the gradients of what is to be trained on.

    Timed as `gradients`, where any module does.
    """
    stacks = [
        (each, each.modules_apart())
        for each in model.modules()
        if isinstance(each, AdapterStack) and isinstance(each.template.module, GradientCalibrated)
    ]
    sets = [*_sets(model), *(apart for _, apart in stacks)]
    if not any(True for each in sets for _ in awaiting_gradients(each)):
        return
    batches = gradient_batches(features, data)
    with events.timed("gradients", sum(len(labels) for _, labels in batches)):
        calibrate_by_gradient(features.backbone, sets, batches)
    for stack, apart in stacks:
        stack.take(apart)


def gradient_batches(features: Features, data: AvalancheDataset) -> list[tuple[Tensor, Tensor]]:
    """Returns the images that gradients are taken of, not augmented, and their labels.

    They stand at even distances in the data, as where classes follow each other the first are no
    sample.
    """
    whole: Any = data
    count = min(GRADIENT_IMAGES, len(data))
    chosen = whole.subset([number * len(data) // count for number in range(count)])
    return list(features.plain_images(chosen))


def _sets(model: nn.Module) -> list[AdapterSet]:
    return [each for each in model.modules() if isinstance(each, AdapterSet)]
