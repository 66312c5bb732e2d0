"""Which classes an experience brings."""

from numbers import Real
from typing import Any

from cl_adapters.errors import InputError
from cl_adapters.strategies.core.avalanche_types import AvalancheDataset

__all__ = ["classes_of"]


def classes_of(dataset: AvalancheDataset) -> tuple[int, ...]:
    """Returns the labels that occur in one of Avalanche's datasets, sorted.

    Raises:
        InputError: If it does not say its labels, or one is no class number.
    """
    targets = getattr(dataset, "targets", None)
    if targets is None:
        raise InputError(
            "dataset of an experience must have `targets`, which Avalanche's "
            f"`as_classification_dataset` gives it, got a {type(dataset).__name__} without"
        )
    labels: list[Any] = sorted(targets.uniques)
    for label in labels:
        if not isinstance(label, Real) or label % 1 != 0 or label < 0:
            raise InputError(f"labels must be whole numbers from 0 on, got {label!r}")
    return tuple(map(int, labels))
