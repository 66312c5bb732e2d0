"""Averages over the parameters of two modules of the same shape, and merging around a pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError

__all__ = ["PAPER_DECAY", "PAPER_STEPS", "auto_decay", "ema_update", "merge_", "merge_by_block"]

# LAE on CIFAR-100 with ten experiences: 5 epochs of 208 steps, decay 0.9999 (Gao et al., 2023).
PAPER_DECAY: Final = 0.9999
PAPER_STEPS: Final = 1040


@torch.no_grad()
def ema_update(average: nn.Module, source: nn.Module, decay: float) -> None:
    """Moves `average` towards `source` in place: average <- decay * average + (1 - decay) * source.

    Args:
        average: The module that is moved.
        source: A module with the same parameters; left as it is.
        decay: Share that is kept, in [0, 1].
    """
    if not 0 <= decay <= 1:
        raise InputError(f"`decay` must lie in [0, 1], got {decay}")
    torch._foreach_lerp_(list(average.parameters()), list(source.parameters()), 1 - decay)


def auto_decay(num_steps: int) -> float:
    """Returns the decay that moves an average as far in `num_steps` as LAE's did in the paper.

    The paper's 0.9999 over 1040 steps an experience moves the offline module by 9.9 % of its
    distance; over 60 steps it would move it by 0.6 %. The decay 0.9999^(1040 / num_steps) keeps the
    9.9 % whatever the size of the experience.

    Example:
        >>> round(1 - auto_decay(60) ** 60, 3), auto_decay(1040)
        (0.099, 0.9999)
    """
    if num_steps < 1:
        raise InputError(f"`num_steps` must be a positive integer, got {num_steps}")
    return float(PAPER_DECAY ** (PAPER_STEPS / num_steps))


@torch.no_grad()
def merge_(
    tensors: Sequence[Tensor],
    averages: Sequence[Tensor],
    strength: float,
    times: int | Sequence[int] = 1,
) -> None:
    """Merges tensors with averages in place: m times A <- (1 - beta) A + beta Abar, at once.

    In closed form A <- (1 - beta)^m A + (1 - (1 - beta)^m) Abar. Autograd is not told, as in MOS'
    code: what a forward pass saved is what the merge leaves behind. Whole numbers, such as counts
    among buffers, stay as they are.

    Args:
        tensors: A, each with blocks in its first dimension.
        averages: Abar, of the same shapes.
        strength: beta, in [0, 1].
        times: m, one number or one a block.
    """
    pairs = [
        (value, average)
        for value, average in zip(tensors, averages, strict=True)
        if value.is_floating_point()
    ]
    if isinstance(times, int):
        for value, average in pairs:
            value.data.lerp_(average, 1 - (1 - strength) ** times)
        return
    shares = 1 - (1 - strength) ** torch.tensor(times, dtype=torch.float64)
    for value, average in pairs:
        share = shares.to(value.dtype).reshape(-1, *[1] * (value.ndim - 1))
        # Sent off without waiting for what a GPU is at.
        value.data.lerp_(average, share.to(value.device, non_blocking=True))


@contextmanager
def merge_by_block(merge: Callable[[int | Sequence[int]], None], num_blocks: int) -> Iterator[None]:
    """Merges around a forward pass as MOS's authors do inside of it: once for each block.

    Block b computes with b + 1 merges; what follows the pass, gradients too, sees all.

    Args:
        merge: Merges every block as often as it is told, by block or all alike.
        num_blocks: Number of blocks, L.
    """
    merge(range(1, num_blocks + 1))
    yield
    merge(range(num_blocks - 1, -1, -1))
