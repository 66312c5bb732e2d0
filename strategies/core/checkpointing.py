"""Going on in the middle of an experience, bit for bit as if nothing had stopped it.

A strategy that is trained again on the experience that was interrupted does anew what comes before
and between its phases (copies, scans, fitted detectors), and that needs no code: it starts from the
same state and draws the same numbers. Only the training of the phases is left out, as far as it had
come; a `TrainerState` takes its place:

    phase 0   end  -> TrainerState    loaded instead of trained
    phase 1   end  -> TrainerState    loaded instead of trained
    phase 2   epoch 4, step 17 -> TrainerState    loaded, and training goes on from there

A point holds what was learned, the optimiser, the position in the order of the images, and every
source of randomness. What a strategy keeps between steps outside of these has to be declared
(`AdapterStrategy.generators`), or it must set `resumes_inside` to False; the check `resumes_inside`
tells.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.utils.data import BatchSampler, Sampler

from cl_adapters.errors import InputError
from cl_adapters.randomness import as_text, from_text

__all__ = [
    "CheckpointMismatchError",
    "Checkpointer",
    "IndexBatches",
    "ResumableBatchSampler",
    "ResumableIndexSampler",
    "ResumablePlugin",
    "ResumableSampler",
    "TrainerState",
    "load_optimizer",
    "optimizer_tensors",
]


class CheckpointMismatchError(InputError):
    """A point of an experience that the strategy, as it is now, cannot take up."""


@dataclass(frozen=True)
class TrainerState:
    """A moment of an experience, and all that decides how it goes on from there.

    Attributes:
        phase: Which phase of the experience, counted from 0.
        epoch: Which epoch of it, counted from 0; its number of epochs after the last.
        tensors: What was learned (`model.NAME`) and the optimiser's state (`optimizer.I.NAME`),
            copied.
        facts: The rest, as JSON can hold it.
    """

    phase: int
    epoch: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


class Checkpointer(Protocol):
    """Who keeps the points of an experience while it is trained."""

    def is_due(self) -> bool:
        """Says, after each step, whether the time has come."""

    def keep(self, points: list[TrainerState]) -> None:
        """Takes the ends of the phases so far and the moment itself, which comes last."""


class ResumablePlugin(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
    """A plugin that counts on when an experience goes on in its middle."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what it knows of the experience so far, as JSON can hold it."""
        raise NotImplementedError

    def load_state_dict(self, facts: Mapping[str, Any]) -> None:
        """Knows again what `facts` gave; comes after the hooks before the epoch."""
        raise NotImplementedError


class ResumableSampler:
    """Batches in an order drawn anew for each pass, of which a pass may begin in the middle.

    Attributes:
        generator: What draws the order.
        skip: Batches that the next pass, and it alone, leaves out without reading them.
    """

    generator: torch.Generator
    skip: int = 0

    def place(self) -> str:
        """Returns the state of the generator; before a pass it stands for the pass's order."""
        return as_text(self.generator.get_state())

    def go_to(self, place: str, skip: int) -> None:
        """Lets the next pass have the order that `place` stood for, and leave out some batches."""
        self.generator.set_state(from_text(place))
        self.skip = skip

    def taken(self) -> int:
        """Returns how many batches to skip now, and forgets it."""
        skip, self.skip = self.skip, 0
        return skip


class ResumableBatchSampler(ResumableSampler, BatchSampler):
    """torch's batch sampler over a random order of images.

    Args:
        sampler: Draws the order from `generator`.
        batch_size: Images a batch.
        drop_last: Leave out a last, smaller batch.
        generator: What draws.
    """

    def __init__(
        self, sampler: Sampler[int], batch_size: int, *, drop_last: bool, generator: torch.Generator
    ) -> None:
        BatchSampler.__init__(self, sampler, batch_size, drop_last)
        self.generator = generator

    def __iter__(self) -> Iterator[list[int]]:
        """Yields the indices of each batch."""
        # Drawn when the first is asked for, as torch does: the loader draws its own number before.
        return islice(BatchSampler.__iter__(self), self.taken(), None)


class IndexBatches:
    """What torch's `DataLoader` over indices gives, tensors (B,), without its work a batch.

    Args:
        order: The batches; a loader would have its generator too.
    """

    def __init__(self, order: ResumableBatchSampler) -> None:
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Tensor]:
        """Draws an order and yields its batches."""
        parts = iter(self._order)
        # A loader draws a seed for its workers, before the order.
        torch.empty((), dtype=torch.int64).random_(generator=self._order.generator)
        return map(torch.tensor, parts)


class ResumableIndexSampler(ResumableSampler):
    """All indices below a number, shuffled and cut into tensors; for loops without a loader.

    Args:
        count: Number of images, N.
        size: Images a part; the last may have fewer.
        generator: What draws.

    Example:
        >>> parts = ResumableIndexSampler(5, 2, torch.Generator().manual_seed(0))
        >>> place = parts.place()
        >>> first = list(parts)
        >>> parts.go_to(place, skip=1)
        >>> [part.tolist() for part in parts] == [part.tolist() for part in first[1:]]
        True
    """

    def __init__(self, count: int, size: int, generator: torch.Generator) -> None:
        self.generator = generator
        self._count, self._size = count, size

    def __len__(self) -> int:
        return -(-self._count // self._size)

    def __iter__(self) -> Iterator[Tensor]:
        """Yields the indices of each part, (B,)."""
        order = torch.randperm(self._count, generator=self.generator)
        return iter(torch.split(order, self._size)[self.taken() :])


def optimizer_tensors(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Returns the state of an optimiser: tensors by name, and the numbers of each group."""
    state = optimizer.state_dict()
    tensors = {
        f"optimizer.{index}.{name}": value.detach().clone()
        for index, values in state["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
    groups = [
        {name: value for name, value in group.items() if isinstance(value, int | float)}
        for group in state["param_groups"]
    ]
    return tensors, groups


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    groups: list[dict[str, float]],
) -> None:
    """Puts an optimiser over the same parameters into the state that `optimizer_tensors` gave.

    Raises:
        InputError: If it has other groups of parameters.
    """
    now = optimizer.state_dict()
    if len(now["param_groups"]) != len(groups):
        raise InputError(
            f"a point of an experience must fit the optimiser's {len(now['param_groups'])} groups "
            f"of parameters, got {len(groups)}"
        )
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value.clone()
    merged = [{**mine, **kept} for mine, kept in zip(now["param_groups"], groups, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": merged})
