"""A term that keeps features apart, as HiDe-Prompt and after it MOS have it."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["orthogonality_loss"]


def orthogonality_loss(features: Tensor, means: Tensor) -> Tensor:
    """Returns the cross-entropy of Z Z' / 0.8 against the identity, Z = [means; features].

    Shape:
        features: (B, D). means: (C, D), of the classes of earlier experiences. Output: scalar.
    """
    rows = torch.cat([means, features.float()])
    own = torch.arange(len(rows), device=rows.device)
    return functional.cross_entropy(rows @ rows.T / 0.8, own)
