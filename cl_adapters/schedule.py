"""Learning rates over epochs."""

import math

__all__ = ["cosine", "quarter_cosine", "tenths"]


def cosine(epoch: int, epochs: int) -> float:
    """Returns the share of a learning rate along a cosine from 1 that would reach 0 after the end.

    Example:
        >>> [round(cosine(epoch, 4), 3) for epoch in range(4)]
        [1.0, 0.854, 0.5, 0.146]
    """
    return (1 + math.cos(math.pi * epoch / epochs)) / 2


def quarter_cosine(epoch: int, epochs: int) -> float:
    """Returns the share of a learning rate along 99 hundredths of a quarter of a cosine.

    It ends at cos(0.99 pi / 2) = 0.016 in the last epoch, as CODA-Prompt and InfLoRA do.

    Example:
        >>> [round(quarter_cosine(epoch, 3), 4) for epoch in range(3)]
        [1.0, 0.7126, 0.0157]
    """
    return math.cos(0.99 * math.pi / 2 * epoch / max(1, epochs - 1))


def tenths(epoch: int, epochs: int) -> float:  # noqa: ARG001 - as the other curves
    """Returns the share of a learning rate that falls to a tenth after every 30 epochs.

    Example:
        >>> tenths(29, 50), tenths(30, 50)
        (1.0, 0.1)
    """
    return float(0.1 ** (epoch // 30))
