"""A classifier that never moves: its rows are the corners of a regular simplex.

Reference: Niccolò Biondi, Federico Pernici, Simone Ricci, Alberto Del Bimbo, "Stationary
Representations: Optimally Approximating Compatibility and Implications for Improved Model
Replacements", CVPR 2024. After the authors' code:

    logits = W f,  W (K, K - 1) with unit rows of which any two have cosine -1 / (K - 1)

without bias, scale or any parameter: the features are trained to lie at the corners. Theirs have a
linear layer before it, for a K of their own; here K = F + 1, all that F features have room for.
Class c has corner K - 1 - c. Their loss counts all corners, those without a class too, which keeps
room for classes to come. Their loss of compatibility is `cl_adapters/heads/compatibility.py`.

Shapes: B batch, F features, K corners, C columns = highest label seen + 1.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.heads.linear import ExperienceHeads, cross_entropy_over

__all__ = ["SIMPLEX_LOSSES", "SimplexHeads", "SimplexLoss", "simplex_corners"]

SimplexLoss = Literal["all", "seen", "current"]
SIMPLEX_LOSSES: Final[tuple[SimplexLoss, ...]] = get_args(SimplexLoss)


def simplex_corners(count: int) -> Tensor:
    """Returns the corners of a regular simplex around 0, (K, K - 1), each of length 1.

    Args:
        count: K, at least 2.

    Example:
        >>> [[round(value, 4) for value in row] for row in simplex_corners(3).tolist()]
        [[0.9659, -0.2588], [-0.2588, 0.9659], [-0.7071, -0.7071]]
    """
    last = count - 1
    corners = torch.eye(count, last, dtype=torch.float64)
    corners[last] = (1 - math.sqrt(1 + last)) / last
    corners -= corners.mean(dim=0)
    return nn.functional.normalize(corners, dim=1).float()


class SimplexHeads(ExperienceHeads):
    """Fixed rows for all classes to come, of which each class takes one.

    Args:
        num_features: F.
        loss: Which corners compete in training: `all`, those of classes `seen`, or those of the
            classes that were announced last.

    Raises:
        InputError: If a class comes for which there is no corner (`add_classes`).
    """

    def __init__(self, num_features: int, *, loss: SimplexLoss = "all") -> None:
        super().__init__(num_features)
        self.competing = loss
        self.current: list[int] = []
        # Follows from F alone, so it is no part of a state.
        self.register_buffer("rows", simplex_corners(num_features + 1).flip(0), persistent=False)
        self.rows: Tensor

    @property
    def has_biases(self) -> bool:
        """Never."""
        return False

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Gives classes that have no row theirs; draws nothing."""
        del generator
        beyond = [label for label in classes if label >= len(self.rows)]
        if beyond:
            raise InputError(
                f"a `simplex` head over {self.num_features} features must have classes below "
                f"{len(self.rows)}, its corners, got class {beyond[0]}"
            )
        self.current = sorted(set(classes))
        self.classes.extend(label for label in self.current if label not in self.classes)

    def forward(self, features: Tensor) -> Tensor:
        """Returns the logits, of all corners where a training loss counts all of them.

        Shape:
            features: (B, F). Output: (B, C), or (B, K) in train mode with the loss `all`; float32.
        """
        if self.training and self.competing == "all":
            return nn.functional.linear(features, self.rows).float()
        return super().forward(features)

    def _seen(self, features: Tensor) -> Tensor:
        return nn.functional.linear(features, self.rows[self.classes]).float()

    def loss(self, classes: Sequence[int], logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross-entropy over the corners that compete, whatever `classes` are."""
        del classes
        if self.competing == "all":
            return nn.functional.cross_entropy(logits, targets)
        return cross_entropy_over(
            self.classes if self.competing == "seen" else self.current, logits, targets
        )
