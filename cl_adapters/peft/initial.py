"""Initial weights of PEFT modules, drawn from the generator that is given."""

import math

import torch
from torch import Tensor, nn

__all__ = ["scale_parameter", "uniform_rows"]


def scale_parameter(value: float | None) -> Tensor:
    """Returns a factor: a parameter that starts at 1 for None, else a number that is not stored."""
    return nn.Parameter(torch.ones(())) if value is None else torch.tensor(float(value))


def uniform_rows(rows: int, columns: int, generator: torch.Generator) -> nn.Parameter:
    """Returns weights (rows, columns), Kaiming-uniform as those of torch's fresh linear layer."""
    weight = torch.empty(rows, columns)
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
    return nn.Parameter(weight)
