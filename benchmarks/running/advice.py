"""Whether images are larger than what the default network sees, and what to choose instead."""

import warnings
from collections.abc import Sequence
from statistics import median
from typing import Final

import numpy as np
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from cl_adapters.benchmarks.data.images import LabelledImages
from cl_adapters.benchmarks.data.stores import ArrowStore, FileStore
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.images.decoding import shorter_side
from cl_adapters.vit.embedded import EMBEDDED  # from there: it is made known to timm
from cl_adapters.vit.names import FOR_PHOTOS

__all__ = ["forward_operations", "shorter_sides", "size_advice"]

_CHOICES: Final = frozenset({"backbone", "weights", "image_size"})
_CLEARLY: Final = 2  # times the input's side, from which on an image loses what a network could see
_LOOKED_AT: Final = 100  # images, spread evenly


def size_advice(configs: Sequence[RunConfig], images: LabelledImages) -> list[str]:
    """Returns a sentence where images are clearly larger than the default network's input.

    That is where the median of their shorter sides is at least twice the input's. Who has chosen a
    network, weights or a size is told nothing.

    Args:
        configs: Recipes over the same images, which are looked at once.
        images: The training images; the headers of at most 100 are read.
    """
    if not any(_CHOICES.isdisjoint(config.model_fields_set) for config in configs):
        return []
    sides = shorter_sides(images)
    input_side, operations = forward_operations(EMBEDDED)
    if not sides or median(sides) < _CLEARLY * input_side:
        return []
    side, more = forward_operations(FOR_PHOTOS)
    sentence = (
        f"images have {median(sides):g} px (median of the shorter side), {EMBEDDED}, the default "
        f"backbone, sees {input_side}: `--backbone {FOR_PHOTOS} --image-size {side}` is likely to "
        f"be better, about {more / operations:.0f} x the operations an image"
    )
    return [sentence]


def shorter_sides(images: LabelledImages) -> list[int]:
    """Returns the shorter side in pixels of at most 100 images; what is damaged is passed over."""
    places = np.linspace(0, len(images) - 1, min(len(images), _LOOKED_AT)).round().astype(int)
    sides = [_side(images, int(place)) for place in places]
    return [side for side in sides if side is not None]


def _side(images: LabelledImages, place: int) -> int | None:
    store, row = images.store, int(images.rows[place])
    if isinstance(store, FileStore | ArrowStore):
        return shorter_side(store.encoded(row), store.max_pixels)
    height, width, _ = images.read(place).shape
    return int(min(height, width))


def forward_operations(name: str) -> tuple[int, int]:
    """Returns a network's input side and its operations for one image, built without memory.

    A multiplication and its addition count as two. The input has the side of the pretraining.
    """
    with torch.device("meta"), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vit = timm.create_model(name, pretrained=False, num_classes=0).eval()
        side = int(vit.patch_embed.img_size[0])
        with FlopCounterMode(display=False) as counter:
            vit(torch.zeros(1, 3, side, side))
    return side, int(counter.get_total_flops())
