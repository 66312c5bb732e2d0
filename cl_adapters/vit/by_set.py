"""The network under the PEFT sets of a bank, each image under the set that it asks for."""

from collections.abc import Callable

import torch
from torch import Tensor

from cl_adapters.peft.bank import AdapterBank
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["FeaturesUnder", "features_by_set", "features_of_all_sets"]

# From images, by whatever they are called, and a set for each, both (B,), to features (B, D).
FeaturesUnder = Callable[[Tensor, Tensor], Tensor]


def features_by_set(backbone: AdaptedViT, bank: AdapterBank, images: Tensor) -> FeaturesUnder:
    """Returns what computes the features of some images, called by their numbers, under sets.

    The images are cut into tokens once, however often they are asked for.

    Shape:
        images: (B, 3, S, S).
    """
    tokens = backbone.tokens(images)

    def features_under(rows: Tensor, sets: Tensor) -> Tensor:
        return backbone.features(backbone.run(tokens[rows], adapters=bank.choose(sets)))

    return features_under


def features_of_all_sets(images: Tensor, sets: int, features_under: FeaturesUnder) -> Tensor:
    """Returns the features of images under every set, one pass a set and image.

    Shape:
        images: (B,), what `features_under` calls the images. Output: (B, T, D).
    """
    found = [features_under(images, torch.full_like(images, each)) for each in range(sets)]
    return torch.stack(found, dim=1)
