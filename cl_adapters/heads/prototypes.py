"""Class means of features and the cosine classifier over them.

Shapes: B batch, F features, C columns = highest label seen + 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.earlier_names import earlier_method
from cl_adapters.heads.linear import UNSEEN_LOGIT

__all__ = ["PrototypeHead"]


class PrototypeHead(GrowingBuffers):
    """Cosine similarity to the mean feature of each class (SimpleCIL; nearest class mean).

    Means are kept as sums and counts in float64, so the result does not depend on how the samples
    were split into batches or experiences.

    Args:
        num_features: F.
        scale: Factor on the cosine before a softmax turns it into a confidence. The argmax does not
            depend on it.
        branches: How many vectors of equal size a feature joins; the score is the mean of their
            cosines. With 1 it is one cosine, in which the longer of joined vectors counts more.

    Example:
        >>> head = PrototypeHead(2, scale=1.0)
        >>> head.add_classes([0, 1])
        >>> head.add(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1]))
        >>> head(torch.tensor([[5.0, 0.0]])).tolist()
        [[1.0, 0.0]]
    """

    def __init__(self, num_features: int, *, scale: float = 10.0, branches: int = 1) -> None:
        super().__init__()
        self.scale, self.branches = scale, branches
        self.register_buffer("sums", torch.zeros(0, num_features, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.float64))
        self.sums: Tensor
        self.counts: Tensor

    def add_classes(self, classes: Sequence[int]) -> None:
        """Makes room for classes that have no column yet."""
        missing = max(classes, default=-1) + 1 - len(self.counts)
        if missing > 0:
            self.sums = functional.pad(self.sums, (0, 0, 0, missing))
            self.counts = functional.pad(self.counts, (0, missing))

    grow = earlier_method("grow", "add_classes")

    @torch.no_grad()
    def add(self, features: Tensor, targets: Tensor) -> None:
        """Adds samples to their classes' means.

        Shape:
            features: (B, F). targets: (B,), labels below C.
        """
        self.sums.index_add_(0, targets, features.double())
        self.counts.index_add_(0, targets, torch.ones_like(targets, dtype=torch.float64))

    def forward(self, features: Tensor) -> Tensor:
        """Returns the scaled cosine to each prototype; `UNSEEN_LOGIT` where there is none.

        Shape:
            features: (B, F). Output: (B, C), float32.
        """
        # The direction of a mean is that of the sum: no division by the count is needed.
        prototypes = self._directions(self.sums).float()
        # In bfloat16 some cosines are equal, and the order of the classes would decide.
        with torch.autocast(features.device.type, enabled=False):
            cosine = self._directions(features.float()) @ prototypes.T / self.branches
        return (self.scale * cosine).masked_fill(self.counts == 0, UNSEEN_LOGIT)

    def _directions(self, rows: Tensor) -> Tensor:
        parts = torch.chunk(rows, self.branches, dim=1)
        return torch.cat([functional.normalize(each, dim=1) for each in parts], dim=1)
