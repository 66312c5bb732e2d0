"""Which experience each class belongs to."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.buffers import GrowingBuffers

__all__ = ["ClassToTask"]


class ClassToTask(GrowingBuffers):
    """The last experience of each class, as part of the state; grows by class.

    Attributes:
        experience_of: (C,) int64, by label; -1 where a class was not seen.

    Example:
        >>> owners = ClassToTask()
        >>> owners.register([3, 0], 0)
        >>> owners.register([1, 3], 1)
        >>> owners(torch.tensor([0, 1, 2, 3])).tolist(), len(owners)
        ([0, 1, -1, 1], 4)
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("experience_of", torch.zeros(0, dtype=torch.int64))
        self.experience_of: Tensor

    def __len__(self) -> int:
        return len(self.experience_of)

    def add_classes(self, classes: Sequence[int]) -> None:
        """Makes room for classes that have no column yet."""
        missing = max(classes, default=-1) + 1 - len(self)
        if missing > 0:
            self.experience_of = functional.pad(self.experience_of, (0, missing), value=-1)

    def register(self, classes: Sequence[int], experience: int) -> None:
        """Gives classes to an experience; one that returns belongs to its last."""
        self.add_classes(classes)
        self.experience_of[list(classes)] = experience

    def forward(self, labels: Tensor) -> Tensor:
        """Returns the experience of each label.

        Shape:
            labels: (B,), below C. Output: (B,).
        """
        return self.experience_of[labels]
