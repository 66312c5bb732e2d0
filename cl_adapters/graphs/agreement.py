"""Whether an exported file answers as the model that it was made of."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from cl_adapters.errors import RunError

__all__ = ["CLOSE", "SAME_TOP", "Agreement", "agreement", "require_agreement"]

SAME_TOP: Final = 0.999  # least share of images with the same most likely class
CLOSE: Final = 1e-4  # largest difference of a probability


@dataclass(frozen=True)
class Agreement:
    """How far two answers to the same images agree.

    Attributes:
        images: How many were compared.
        same_top: Share of them with the same most likely class, in [0, 1].
        worst: Largest difference of a probability.
    """

    images: int
    same_top: float
    worst: float


def agreement(
    answer: Callable[[Tensor], Tensor], native: Iterable[tuple[Tensor, Tensor]]
) -> Agreement:
    """Compares a file's answers with those of the model.

    Args:
        answer: From images (B, 3, S, S) uint8 to probabilities (B, C).
        native: Batches of images, each with the model's own probabilities.
    """
    images, same, worst = 0, 0, 0.0
    for batch, expected in native:
        found = answer(batch)
        images += len(batch)
        same += int((found.argmax(dim=1) == expected.argmax(dim=1)).sum())
        apart = (found.double() - expected.double()).abs()
        # What is no number differs as far as can be.
        worst = max(worst, float(apart.nan_to_num(torch.inf, torch.inf).max()))
    return Agreement(images, same / images if images else 0.0, worst)


def require_agreement(found: Agreement, name: str, close: float = CLOSE) -> None:
    """Refuses a file that does not answer as its model.

    Args:
        found: What was measured.
        name: The file's.
        close: Largest difference of a probability.

    Raises:
        RunError: If it does not; says what was measured.
    """
    if not found.images or found.same_top < SAME_TOP or not found.worst <= close:
        raise RunError(
            f"{name} must answer as the model does, with the same class for {SAME_TOP:.1%} of the "
            f"images and probabilities within {close:g} (`tolerance`), got {found.same_top:.2%} "
            f"and {found.worst:.2g} on {found.images} images: no file was written"
        )
