"""What linear classifiers by least squares have in common: one column a class, solved in one step.

Shapes: B batch, M features, C columns = highest label seen + 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.heads.linear import UNSEEN_LOGIT

__all__ = ["LeastSquaresHead"]


class LeastSquaresHead(GrowingBuffers):
    """Sums of features by class, and the weights that a regression made of them.

    A subclass sums what else it needs in `add` and sets `weight` in its `solve`.

    Args:
        num_features: M.
        scale: Factor on the scores before a softmax turns them into a confidence.
        normalise_columns: Score by cosines between features and each class's weights, another
            classifier than the regression.

    Attributes:
        cross: H' Y, (M, C) float64: features summed by class.
        weight: W', (C, M) float32; 0 until it is solved.
        is_seen: Whether a class has a sample, (C,).
    """

    def __init__(
        self, num_features: int, *, scale: float = 10.0, normalise_columns: bool = False
    ) -> None:
        super().__init__()
        self.scale = scale
        self.normalise_columns = normalise_columns
        self.register_buffer("cross", torch.zeros(num_features, 0, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(0, num_features))
        self.register_buffer("is_seen", torch.zeros(0, dtype=torch.bool))
        self.cross: Tensor
        self.weight: Tensor
        self.is_seen: Tensor

    def add_classes(self, classes: Sequence[int]) -> None:
        """Makes room for classes that have no column yet."""
        missing = max(classes, default=-1) + 1 - len(self.is_seen)
        if missing > 0:
            self.cross = functional.pad(self.cross, (0, missing))
            self.weight = functional.pad(self.weight, (0, 0, 0, missing))
            self.is_seen = functional.pad(self.is_seen, (0, missing))

    @torch.no_grad()
    def add(self, features: Tensor, targets: Tensor) -> None:
        """Adds samples; `solve` lets them count.

        Shape:
            features: (B, M). targets: (B,), labels below C.
        """
        self.cross.index_add_(1, targets, features.double().T.contiguous())
        self.is_seen[targets] = True

    def forward(self, features: Tensor) -> Tensor:
        """Returns the scaled scores; `UNSEEN_LOGIT` where there is no sample.

        Shape:
            features: (B, M). Output: (B, C), float32.
        """
        rows, weight = features.float(), self.weight
        if self.normalise_columns:
            rows, weight = (functional.normalize(each, dim=1) for each in (rows, weight))
        # In bfloat16 some scores are equal, and the order of the classes would decide.
        with torch.autocast(features.device.type, enabled=False):
            scores = functional.linear(rows, weight)
        return (self.scale * scores).masked_fill(~self.is_seen, UNSEEN_LOGIT)
