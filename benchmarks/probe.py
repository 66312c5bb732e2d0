"""Measures frozen features: nearest class mean and ridge."""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["extract_features", "nearest_class_mean"]



@torch.inference_mode()
def extract_features(network: nn.Module, pixels: Tensor, *, side: int = 32) -> Tensor:
    """Returns the features of a frozen network with mean = std = 0.5.

    Args:
        network: Maps normalised images (B, 3, side, side) to features (B, D).
        pixels: Shape: (N, 3, H, W), uint8.
        side: Size in pixels that images are scaled to (bicubic, antialiased).

    Returns:
        Shape: (N, D), fp32.
    """
    features = []
    for images in pixels.split(128):
        batch = images.float()
        if batch.shape[2:] != (side, side):
            batch = F.interpolate(batch, (side, side), mode="bicubic", antialias=True)
            batch = batch.clamp(0, 255)
        features.append(network(batch / 127.5 - 1))
    return torch.cat(features)


def nearest_class_mean(known: Tensor, labels: Tensor, test: Tensor, truth: Tensor) -> float:
    """Returns the accuracy in per cent of the nearest class mean by cosine.

    Features are scaled to length one before and after they are averaged.

    Args:
        known: Features that give the means. Shape: (N, D).
        labels: Their classes, from 0. Shape: (N,).
        test: Features to classify. Shape: (M, D).
        truth: Their classes. Shape: (M,).

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 2.0]])
        >>> nearest_class_mean(points[1:], torch.tensor([0, 1]), points, torch.tensor([0, 0, 1]))
        100.0
    """
    means = torch.zeros(int(labels.max()) + 1, known.shape[1])
    means.index_add_(0, labels, F.normalize(known, dim=-1))
    scores = F.normalize(test, dim=-1) @ F.normalize(means, dim=-1).T
    return 100 * float((scores.argmax(dim=-1) == truth).float().mean())
