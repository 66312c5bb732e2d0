"""What PEFT modules are shown that set themselves from images, before training and after it."""

from typing import Any, Final

from torch import Tensor, nn

from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.strategies.core.avalanche_types import AvalancheDataset
from cl_adapters.strategies.core.event_log import EventLog
from cl_adapters.strategies.core.features import Features
from cl_adapters.vit.calibration import calibrate
from cl_adapters.vit.site_gradients import awaiting_gradients, calibrate_by_gradient

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
    batches = gradient_batches(model, features, data)
    if batches:
        with events.timed("gradients", sum(len(labels) for _, labels in batches)):
            calibrate_by_gradient(features.backbone, _sets(model), batches)


def gradient_batches(
    model: nn.Module, features: Features, data: AvalancheDataset
) -> list[tuple[Tensor, Tensor]]:
    """Returns images and labels for the modules of a model that await a gradient; none if none do.

    They stand at even distances in the data, as where classes follow each other the first are no
    sample, and are not augmented.
    """
    if not any(True for each in _sets(model) for _ in awaiting_gradients(each)):
        return []
    whole: Any = data
    count = min(GRADIENT_IMAGES, len(data))
    chosen = whole.subset([number * len(data) // count for number in range(count)])
    return list(features.plain_images(chosen))


def _sets(model: nn.Module) -> list[AdapterSet]:
    return [each for each in model.modules() if isinstance(each, AdapterSet)]
