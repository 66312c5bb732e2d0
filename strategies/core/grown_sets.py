"""What a model with whole sets answers as if some of them were not there: what each is worth.

The first set stands in for one that is left out. A set is called by the regime that it is of, or
where nothing asks detectors by its experience; the network is one place, `PLACE`.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.strategies.core.regimes import PLACE, Regimes

__all__ = ["GrownSets"]


class GrownSets(nn.Module):
    """A model with sets that can be left out.

    Attributes:
        unit: What grows.
        left_out: The sets that the first one stands in for, as `stored_as` calls them.
    """

    unit: ClassVar[str] = "set"
    regimes: Regimes | None
    left_out: frozenset[int] = frozenset()

    def count_sets(self) -> int:
        """Returns how many sets answer."""
        return 0 if self.regimes is None else self.regimes.count

    def stored_as(self, number: int) -> int:
        """Returns what the model's own numbers call a set."""
        return number

    def grown(self) -> list[tuple[int, int]]:
        """Returns place and number, from 0, of every set beside the first."""
        return [(PLACE, number) for number in range(1, self.count_sets())]

    def grown_together(self) -> list[list[tuple[int, int]]]:
        """Returns the sets of `grown` in groups that came together, here each alone."""
        return [[each] for each in self.grown()]

    @contextmanager
    def leaving_out(self, sets: Collection[tuple[int, int]]) -> Iterator[None]:
        """Answers without some sets for a while.

        Args:
            sets: Place and number of each.

        Raises:
            InputError: If one of them has not grown.
        """
        for each in sets:
            if each not in self.grown():
                raise InputError(f"sets to leave out must be some of {self.grown()}, got {each}")
        self.left_out = frozenset(self.stored_as(number) for _, number in sets)
        try:
            yield
        finally:
            self.left_out = frozenset()

    def standing_in(self, sets: Tensor) -> Tensor:
        """Returns the set that answers for each, itself, or the first for one left out.

        Shape:
            sets: (B,). Output: the same.
        """
        if not self.left_out:
            return sets
        gone = torch.isin(sets, sets.new_tensor(sorted(self.left_out)))
        return torch.where(gone, torch.zeros_like(sets), sets)
