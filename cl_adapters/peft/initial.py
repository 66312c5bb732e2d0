"""Initial weights of PEFT modules, drawn from the generator that is given."""

import math

import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError

__all__ = ["orthonormal_rows", "scale_parameter", "uniform_rows"]


def scale_parameter(value: float | None) -> Tensor:
    """Returns a factor: a parameter that starts at 1 for None, else a number that is not stored."""
    return nn.Parameter(torch.ones(())) if value is None else torch.tensor(float(value))


def uniform_rows(rows: int, columns: int, generator: torch.Generator) -> nn.Parameter:
    """Returns weights (rows, columns), Kaiming-uniform as those of torch's fresh linear layer."""
    weight = torch.empty(rows, columns)
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
    return nn.Parameter(weight)


def orthonormal_rows(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Returns orthonormal rows (rows, columns), from the QR decomposition of a uniform draw.

    Raises:
        InputError: If there are more rows than columns.
    """
    if rows > columns:
        raise InputError(
            f"orthonormal rows must be at most as many as columns, {columns}, got {rows}"
        )
    drawn = torch.rand(columns, rows, generator=generator)
    found: Tensor = torch.linalg.qr(drawn)[0].T.contiguous()
    return found
