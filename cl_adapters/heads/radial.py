"""A linear layer on radial functions of each feature: the head KAC.

Reference: Yusong Hu, Zichen Liang, Fei Yang, Qibin Hou, Xialei Liu, Ming-Ming Cheng, "KAC:
Kolmogorov-Arnold Classifier for Continual Learning", CVPR 2025. After the authors' code:

    logits = W g(LN(f)),  g_m(x) = exp(-((x - p_m) / delta)^2) for each number x of LN(f)

with 16 places p_m at equal distances delta = 4 / 15 from -2 to 2, W zero at first and no bias. The
norm's gain and shift are trained, and serve the classes of all experiences.

Shapes: B batch, F features, C columns.
"""

import copy
from typing import Final

import torch
from torch import Tensor, nn

__all__ = ["PLACES", "RadialBasis", "RadialLinear"]

PLACES: Final = 16
_END: Final = 2.0


class RadialBasis(nn.Module):
    """How near each normalised feature lies to some places.

    Args:
        num_features: F.

    Shape:
        Input: (B, F). Output: (B, F * 16), the places of a feature side by side; from 0 to 1.

    Example:
        >>> RadialBasis(3)(torch.tensor([[0.0, 1.0, 2.0]])).shape
        torch.Size([1, 48])
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(num_features)  # ones and zeros: nothing is drawn
        self.register_buffer("places", torch.linspace(-_END, _END, PLACES), persistent=False)
        self.places: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """Returns the values of the radial functions."""
        distances = (self.norm(features)[..., None] - self.places) * ((PLACES - 1) / (2 * _END))
        values: Tensor = (-distances.square()).exp().flatten(-2)
        return values


class RadialLinear(nn.Linear):
    """Rows of weights over a basis that stays as it is.

    Args:
        basis: Copied.
        rows: C.
    """

    def __init__(self, basis: RadialBasis, rows: int) -> None:
        width = len(basis.norm.weight) * PLACES
        super().__init__(width, rows, bias=False, device="meta")
        self.to_empty(device=basis.norm.weight.device)
        self.basis = copy.deepcopy(basis).requires_grad_(requires_grad=False)

    def forward(self, features: Tensor) -> Tensor:
        """Returns the logits.

        Shape:
            features: (B, F). Output: (B, C).
        """
        return super().forward(self.basis(features))
