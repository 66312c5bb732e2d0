"""A loss that keeps features comparable with those of an earlier network (HOC).

Reference: Niccolò Biondi, Federico Pernici, Simone Ricci, Alberto Del Bimbo, "Stationary
Representations: Optimally Approximating Compatibility and Implications for Improved Model
Replacements", CVPR 2024, equation 4. After the authors' code, with u_i the old and v_j the new
features of a batch at length 1:

    s_ij = 10 u_i' v_j
    loss = mean over i of  -s_ii + log sum_j exp(s_ij [y_i != y_j])

Images of the same class, an image itself among them, add exp(0) to the sum, so that the loss may be
negative.

Shapes: B batch, F features.
"""

from typing import Final

from torch import Tensor
from torch.nn import functional

__all__ = ["compatibility_loss"]

SCALE: Final = 10.0  # mu


def compatibility_loss(new: Tensor, old: Tensor, targets: Tensor, scale: float = SCALE) -> Tensor:
    """Returns how far images are from where an earlier network saw them, against other classes.

    Args:
        new: (B, F), features of the network in training.
        old: (B, F), those of the earlier one.
        targets: (B,), labels.
        scale: mu, of the cosines.

    Shape:
        Output: scalar.

    Example:
        >>> from torch import eye, tensor
        >>> round(compatibility_loss(eye(2), eye(2), tensor([0, 1])).item(), 4)  # -10 + log 2
        -9.3069
    """
    cosines = scale * functional.normalize(old, dim=1) @ functional.normalize(new, dim=1).T
    is_other = targets[:, None] != targets
    return ((cosines * is_other).logsumexp(dim=1) - cosines.diagonal()).mean()
