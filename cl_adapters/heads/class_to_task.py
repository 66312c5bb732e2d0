"""TEMP"""

import torch
from collections.abc import Sequence
from torch import Tensor, nn
from torch.nn import functional
from cl_adapters.buffers import GrowingBuffers


class ClassToTask(GrowingBuffers):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("experience_of", torch.zeros(0, dtype=torch.int64))
        self.experience_of: Tensor

    def register(self, classes: Sequence[int], experience: int) -> None:
        missing = max(classes, default=-1) + 1 - len(self.experience_of)
        if missing > 0:
            self.experience_of = functional.pad(self.experience_of, (0, missing), value=-1)
        self.experience_of[list(classes)] = experience
