"""Random views and distortions of a batch of images, all on tensors.

Besides crops, flips and colour they make images that photographs never are: inverted, coarse,
thresholded, or reduced to edges, so that drawings and scans are not foreign to the network.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["distort", "random_views"]


def random_views(pixels: Tensor, source: torch.Generator, *, side: int = 32) -> Tensor:
    """Cuts a random, slightly rotated and stretched, possibly mirrored part out of each image.

    Nine in ten views are crops of 30 % to 100 % of the area; the tenth shows the image smaller.

    Args:
        pixels: Shape: (B, 3, H, W), uint8.
        source: Randomness.
        side: Size of the views in pixels.

    Returns:
        Shape: (B, 3, side, side), in [0, 1].
    """
    batch = len(pixels)
    draw = torch.rand(7, batch, generator=source)
    scale = (0.3 + 0.7 * draw[0]).sqrt()
    scale = torch.where(draw[1] < 0.1, 1 + 0.7 * draw[0], scale)
    stretch = torch.exp((draw[2] - 0.5) * 0.5)
    angle = (draw[3] - 0.5) * (math.pi / 4) * (draw[3] * 7.0 % 1.0)
    mirror = torch.where(draw[4] < 0.5, -1.0, 1.0)
    wide, high = scale * stretch, scale / stretch
    room = (1 - scale).abs()
    rows = [
        mirror * wide * angle.cos(), -high * angle.sin(), (draw[5] * 2 - 1) * room,
        mirror * wide * angle.sin(), high * angle.cos(), (draw[6] * 2 - 1) * room,
    ]  # fmt: skip
    maps = torch.stack(rows, dim=1).view(batch, 2, 3)
    grid = functional.affine_grid(maps, [batch, 3, side, side], align_corners=False)
    views = functional.grid_sample(
        pixels.float() / 255, grid, padding_mode="border", align_corners=False
    )
    return views.clamp(0, 1)


def distort(images: Tensor, source: torch.Generator) -> Tensor:
    """Changes colours, sharpness and kind of images, each with its own chance.

    Args:
        images: Shape: (B, 3, H, W), in [0, 1].
        source: Randomness.

    Returns:
        Shape: (B, 3, H, W), in [0, 1].
    """
    changes: tuple[tuple[float, Callable[[Tensor], Tensor]], ...] = (
        (0.20, _blur),
        (0.06, partial(_coarse, side=8)),
        (0.08, partial(_coarse, side=16)),
        (0.05, _edges),
        (0.05, _threshold),
        (0.30, partial(_noise, source=source)),
        (0.12, _invert),
    )
    images = _recolour(images, source)
    for chance, change in changes:
        rows = (torch.rand(len(images), generator=source) < chance).nonzero()[:, 0]
        if len(rows):
            images = images.index_copy(0, rows, change(images[rows]))
    return images.clamp(0, 1)


def _invert(images: Tensor) -> Tensor:
    return 1 - images


def _noise(images: Tensor, source: torch.Generator) -> Tensor:
    return images + torch.randn(images.shape, generator=source) * 0.06


def _grey(images: Tensor) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def _recolour(images: Tensor, source: torch.Generator) -> Tensor:
    """Changes saturation, contrast, brightness and the gain of each channel."""
    draw = torch.rand(3, len(images), 1, 1, 1, generator=source)
    gain = 1 + (torch.rand(len(images), 3, 1, 1, generator=source) - 0.5) * 0.3
    grey = _grey(images)
    saturation = torch.where(draw[0] < 0.15, torch.zeros(()), 0.5 + draw[0])
    images = grey + (images - grey) * saturation
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (mean + (images - mean) * (0.5 + draw[1])) * gain * (0.6 + 0.8 * draw[2])
    return images.clamp(0, 1)


def _blur(images: Tensor) -> Tensor:
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = torch.outer(line, line).expand(3, 1, 5, 5)
    return functional.conv2d(
        functional.pad(images, (2, 2, 2, 2), mode="replicate"), kernel, groups=3
    )


def _coarse(images: Tensor, side: int) -> Tensor:
    small = functional.adaptive_avg_pool2d(images, side)
    return functional.interpolate(small, images.shape[2:], mode="bicubic", align_corners=False)


def _edges(images: Tensor) -> Tensor:
    """Returns dark lines on white where brightness changes, like a drawing."""
    grey = _grey(images)
    across = functional.pad(grey[..., 2:] - grey[..., :-2], (1, 1, 0, 0))
    down = functional.pad(grey[..., 2:, :] - grey[..., :-2, :], (0, 0, 1, 1))
    strength = (across**2 + down**2).sqrt()
    strength = strength / (strength.amax(dim=(1, 2, 3), keepdim=True) + 0.05)
    return (1 - 1.5 * strength).clamp(0, 1).expand_as(images)


def _threshold(images: Tensor) -> Tensor:
    grey = _grey(images)
    level = grey.mean(dim=(1, 2, 3), keepdim=True)
    return torch.sigmoid((grey - level) * 20).expand_as(images)
