"""Losses that hold logits to those of another model."""

from torch import Tensor

__all__ = ["soft_cross_entropy"]


def soft_cross_entropy(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Returns the mean cross-entropy of a softmax against another's, both at a temperature.

    Both get gradients.

    Shape:
        logits, teacher: (B, C). Output: scalar.

    Example:
        >>> from torch import tensor
        >>> round(soft_cross_entropy(tensor([[2.0, 0.0]]), tensor([[1.0, 1.0]]), 2.0).item(), 4)
        0.8133
    """
    wanted = (teacher / temperature).softmax(dim=1)
    return -(wanted * (logits / temperature).log_softmax(dim=1)).sum(dim=1).mean()
