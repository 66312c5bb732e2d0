"""How far features of images that are gone have moved, told from those at hand.

An experience changes the network, and with it the features of classes whose images are gone. Its
own images are seen before and after, and what moved them is taken to have moved the others too.

    kernel_shift      for each mean, images that lie near it count more (SSIAT)
    centroid_shift    one shift for all (ACMap)

References: Yuwen Tan, Qinhao Zhou, Xiang Xiang, Ke Wang, Yuchuan Wu, Yongbin Li, "Semantically-
Shifted Incremental Adapter-Tuning is A Continual ViTransformer", CVPR 2024, arXiv:2403.19979.
Takuma Fukuda, Hiroshi Kera, Kazuhiko Kawamoto, "Adapter Merging with Centroid Prototype Mapping for
Scalable Class-Incremental Learning", CVPR 2025, arXiv:2412.18219.

Shapes: n images, D features, M means.
"""

from typing import Final

import torch
from torch import Tensor

__all__ = ["KERNEL_FLOOR", "centroid_shift", "kernel_shift"]

KERNEL_FLOOR: Final = 1e-5  # weight of an image however far it lies


def kernel_shift(before: Tensor, after: Tensor, means: Tensor, sigma: float) -> Tensor:
    """Returns the shift of each mean: the mean shift of the images, near ones first.

    The weights are w_i = exp(-||x_i - mu||^2 / (2 sigma^2)) + 1e-5, over their sum. Where all
    images lie many sigmas away they are equal.

    Args:
        before: Features of the images before.
        after: Of the same images afterwards, row by row.
        means: The means, as they were before.
        sigma: Width of the kernel, above 0; infinite weighs all alike.

    Shape:
        before, after: (n, D). means: (M, D). Output: (M, D).

    Example:
        >>> before, after = torch.tensor([[0.0, 0], [2, 0]]), torch.tensor([[1.0, 0], [2, 1]])
        >>> shift = kernel_shift(before, after, torch.zeros(1, 2), 4.0)
        >>> [round(value, 3) for value in shift[0].tolist()]
        [0.531, 0.469]
    """
    distances = torch.cdist(means.double(), before.double()) ** 2
    weights = torch.exp(-distances / (2 * sigma**2)) + KERNEL_FLOOR
    shifts = (after - before).double()
    return (weights / weights.sum(dim=1, keepdim=True) @ shifts).to(means.dtype)


def centroid_shift(before: Tensor, after: Tensor) -> Tensor:
    """Returns how far the mean of some images has moved.

    Shape:
        before, after: (n, D). Output: (D,).

    Example:
        >>> centroid_shift(torch.zeros(3, 2), torch.ones(3, 2)).tolist()
        [1.0, 1.0]
    """
    shift = after.double().mean(dim=0) - before.double().mean(dim=0)
    return shift.to(after.dtype)
