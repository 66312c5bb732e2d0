"""Pixels on their way into a network: scaled where they came as bytes, refused where not finite."""

import torch
from torch import Tensor

from cl_adapters.errors import InputError

__all__ = ["Triple", "refuse_infinite", "scaled"]

Triple = tuple[float, float, float]


def refuse_infinite(images: Tensor) -> None:
    """Looks at every pixel of images (B, C, S, S); a GPU would have to finish its work first.

    A graph that is being made of the network has no pixels to look at.

    Raises:
        InputError: If a pixel is not finite.
    """
    if torch.compiler.is_compiling():
        return
    if images.is_floating_point() and not bool(torch.isfinite(images).all()):
        worst = int((~torch.isfinite(images)).flatten(1).any(dim=1).nonzero()[0])
        raise InputError(
            f"pixels must be finite, got NaN or infinity in image {worst} of the batch"
        )


def scaled(images: Tensor, pixels: tuple[Triple, Triple] | None) -> Tensor:
    """Returns images (B, C, S, S) as numbers where they are bytes, any other as they are.

    Args:
        images: The images.
        pixels: Mean and standard deviation a channel, for pixels in [0, 1]; None leaves bytes.
    """
    if images.dtype != torch.uint8 or pixels is None:
        return images
    # Filled number by number: a tensor made of a list would be waited for.
    mean, std = (
        torch.cat([torch.full((1, 1, 1), each, device=images.device) for each in values])
        for values in pixels
    )
    return images.float().div_(255).sub_(mean).div_(std)
