"""What a method answers: values for a batch and for an experience."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Output", "Phase", "as_output"]


class Phase(NamedTuple):
    """Some epochs of training under one name, as timings call them."""

    name: str
    epochs: int


@dataclass(frozen=True)
class Output:
    """Logits, and what else a forward pass found.

    Attributes:
        logits: (B, C), a column for each label; their softmax is the predicted probability.
        extras: By name, for the loss and for diagnostics: `features` (B, D), `retrieval`, `votes`,
            `router`. Nothing that decides an answer stands here alone.
    """

    logits: Tensor
    extras: Mapping[str, Any] = field(default_factory=dict)


def as_output(value: Output | Tensor) -> Output:
    """Returns what a model's forward gave as an `Output`."""
    return value if isinstance(value, Output) else Output(value)
