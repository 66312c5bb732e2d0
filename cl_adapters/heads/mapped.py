"""Class means that move with the network: each where it was measured, and a shift to where it is.

Means of an experience are measured once, under the network of that time. Later networks see the
classes elsewhere; how far, is told from the images at hand (`drift.py`), one shift for each network
under which means were measured. Shifts are made anew after each experience, always from the means
as they were measured, so that errors do not add up.

Reference: Takuma Fukuda, Hiroshi Kera, Kazuhiko Kawamoto, "Adapter Merging with Centroid Prototype
Mapping for Scalable Class-Incremental Learning", CVPR 2025, arXiv:2412.18219.

Shapes: B batch, F features, C columns = highest label seen + 1, S networks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.buffers import KeptTensors
from cl_adapters.heads.class_to_task import ClassToTask
from cl_adapters.heads.linear import UNSEEN_LOGIT
from cl_adapters.heads.prototypes import PrototypeHead

__all__ = ["MappedPrototypes"]


class MappedPrototypes(nn.Module):
    """Cosine similarity to class means that are mapped to the present network.

    Args:
        num_features: F.
        scale: Factor on the cosine before a softmax turns it into a confidence.

    Attributes:
        measured: The means, each under the network of its time.
        measured_under: (C,), which network that was; -1 where a class was not measured.
        mapping: Its `shifts` (S, F), how far means under each network have moved since.

    Example:
        >>> head = MappedPrototypes(2, scale=1.0)
        >>> head.add_classes([0, 1])
        >>> head.add(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), network=0)
        >>> head.move_to(torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
        >>> head.means().tolist()
        [[2.0, 2.0], [0.0, 0.0]]
    """

    def __init__(self, num_features: int, *, scale: float = 10.0) -> None:
        super().__init__()
        self.measured = PrototypeHead(num_features, scale=scale)
        self.measured_under = ClassToTask()
        self.mapping = KeptTensors(["shifts"])

    def add_classes(self, classes: Sequence[int]) -> None:
        """Makes room for classes that have no column yet."""
        self.measured.add_classes(classes)
        self.measured_under.add_classes(classes)

    @torch.no_grad()
    def add(self, features: Tensor, targets: Tensor, network: int) -> None:
        """Adds samples to their classes' means, as the newest network sees them.

        A class that was measured under an earlier one is mapped first; it then counts as measured
        under the newest.

        Args:
            features: Of the samples, under the newest network.
            targets: Their classes.
            network: Number of the newest network, S - 1.

        Shape:
            features: (B, F). targets: (B,), labels below C.
        """
        for label in torch.unique(targets).tolist():
            before = int(self.measured_under.experience_of[label])
            if 0 <= before != network:
                moved = self.measured.counts[label] * self.mapping["shifts"][before]
                self.measured.sums[label] += moved
            self.measured_under.register([label], network)
        self.measured.add(features, targets)

    def move_to(self, shifts: Tensor) -> None:
        """Maps all means to a new network.

        Shape:
            shifts: (S, F), from each network to the newest, which is the last: zeros.
        """
        self.mapping.keep({"shifts": shifts.double()})

    def means(self) -> Tensor:
        """Returns the means as the newest network would see them, (C, F); 0 where there is none."""
        means = self.measured.sums / self.measured.counts.clamp_min(1)[:, None]
        under = self.measured_under.experience_of
        shifts = self.mapping["shifts"][under.clamp_min(0)]
        return torch.where(under[:, None] < 0, 0.0, means + shifts)

    def forward(self, features: Tensor) -> Tensor:
        """Returns the scaled cosine to each mean; `UNSEEN_LOGIT` where there is none.

        Shape:
            features: (B, F). Output: (B, C), float32.
        """
        means = functional.normalize(self.means(), dim=1).float()
        # In bfloat16 some cosines are equal, and the order of the classes would decide.
        with torch.autocast(features.device.type, enabled=False):
            cosine = functional.normalize(features.float(), dim=1) @ means.T
        under = self.measured_under.experience_of
        return (self.measured.scale * cosine).masked_fill(under < 0, UNSEEN_LOGIT)
