"""A pass with gradients, for PEFT modules that set themselves from a loss before they are trained.

The network has no classifier yet, so the loss is that of one fit for it in closed form: cosines to
the class means of the same images' features.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.heads.prototypes import PrototypeHead
from cl_adapters.peft.adapter_set import AdapterSet, Slot, slots_of
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["GradientCalibrated", "awaiting_gradients", "calibrate_by_gradient", "site_gradients"]

Batches = Sequence[tuple[Tensor, Tensor]]
Place = tuple[Slot, int]


@runtime_checkable
class GradientCalibrated(Protocol):
    """What a PEFT module answers that wants to see gradients before it is trained.

    One that leaves its place of birth, where it changes nothing, has `moves_on_calibration = True`.
    """

    @property
    def awaits_gradient(self) -> bool:
        """Whether it has not seen them yet; to be read from its state, so that it asks once."""

    def calibrate_by(self, gradients: Mapping[Slot, Tensor]) -> None:
        """Sets the module.

        Args:
            gradients: By slot, the mean gradient of the loss at the frozen weights beside it,
                shaped as `Site.weight`: (out, in).
        """


def awaiting_gradients(
    adapters: AdapterSet,
) -> Iterator[tuple[tuple[Place, ...], GradientCalibrated]]:
    """Yields the modules of a set that ask for gradients, with the places that each fills."""
    for slots, block in adapters:
        module = adapters.at(slots, block)
        if isinstance(module, GradientCalibrated) and module.awaits_gradient:
            yield tuple((slot, block) for slot in slots_of(slots)), module


def calibrate_by_gradient(
    backbone: AdaptedViT, sets: Iterable[AdapterSet], batches: Batches
) -> None:
    """Shows the modules of some sets that ask for it the gradients at their sites.

    The network is that without any module. Without a module that asks, nothing is read.

    Args:
        backbone: The frozen network, of which each image takes two passes.
        sets: Its modules; those that are `GradientCalibrated` and still await it take part.
        batches: Images (B, C, S, S) and labels (B,), on the network's device.

    Raises:
        InputError: If a module asks and there is no image, or no frozen weight beside it.
    """
    asking = [each for adapters in sets for each in awaiting_gradients(adapters)]
    if not asking:
        return
    places = list(dict.fromkeys(place for filled, _ in asking for place in filled))
    gradients = dict(zip(places, site_gradients(backbone, places, batches), strict=True))
    with torch.no_grad():
        for filled, module in asking:
            module.calibrate_by({slot: gradients[slot, block] for slot, block in filled})


def site_gradients(backbone: AdaptedViT, places: Sequence[Place], batches: Batches) -> list[Tensor]:
    """Returns the mean gradient, over images, of the cross-entropy at frozen weights.

    Args:
        backbone: The frozen network, of which each image takes two passes.
        places: Slots and blocks with frozen weights beside them.
        batches: Images (B, C, S, S) and labels (B,), on the network's device; read twice.

    Returns:
        For each place a tensor shaped as its `Site.weight`, (out, in).

    Raises:
        InputError: If there is no image, or no frozen weight at a place.
    """
    count = sum(len(labels) for _, labels in batches)
    if count == 0:
        raise InputError("gradients must be taken of at least one image, got none")
    head = PrototypeHead(backbone.embed_dim).to(batches[0][0].device)
    with torch.no_grad():
        for images, labels in batches:
            head.add_classes(labels.tolist())
            head.add(backbone(images), labels)
    probes = {place: _Probe(backbone, *place).to(head.sums.device) for place in places}
    watched = AdapterSet(probes)  # type: ignore[arg-type] # a slot is one of the slots
    with torch.enable_grad():
        for images, labels in batches:
            logits = head(backbone(images, watched))
            functional.cross_entropy(logits, labels, reduction="sum").backward()  # type: ignore[no-untyped-call]
    return [_gradient(probes[place]) / count for place in places]


class _Probe(nn.Module):
    """Adds nothing, by a matrix of zeros, whose gradient is that of the weights beside it."""

    def __init__(self, backbone: AdaptedViT, slot: Slot, block: int) -> None:
        super().__init__()
        weight = backbone.site(slot, block).weight
        if weight is None:
            raise InputError(
                f"gradients must be taken at frozen weights, got slot {slot!r}, which has none"
            )
        self.update = nn.Parameter(torch.zeros_like(weight))
        self.is_pair = slot == "key_value"

    def forward(self, inputs: Tensor, *_: Tensor) -> Tensor | tuple[Tensor, ...]:
        added = functional.linear(inputs, self.update)
        return added.chunk(2, dim=-1) if self.is_pair else added


def _gradient(probe: _Probe) -> Tensor:
    # None where nothing of the place reaches the features.
    found = probe.update.grad
    return torch.zeros_like(probe.update) if found is None else found
