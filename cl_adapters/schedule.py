"""Learning rates over epochs."""

import math

__all__ = ["cosine"]


def cosine(epoch: int, epochs: int) -> float:
    """Returns the share of a learning rate along a cosine from 1 that would reach 0 after the end.

    Example:
        >>> [round(cosine(epoch, 4), 3) for epoch in range(4)]
        [1.0, 0.854, 0.5, 0.146]
    """
    return (1 + math.cos(math.pi * epoch / epochs)) / 2
