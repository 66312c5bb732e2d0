"""Averages over the parameters of two modules of the same shape, and merging around a pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError

__all__ = [
    "PAPER_DECAY",
    "PAPER_STEPS",
    "auto_decay",
    "ema_update",
    "fisher_average",
    "merge_",
    "merge_by_block",
    "orthogonality_term",
    "universal_set",
]

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
    *,
    renew: bool = False,
) -> None:
    """Merges tensors with averages: m times A <- (1 - beta) A + beta Abar, at once.

    In closed form A <- (1 - beta)^m A + (1 - (1 - beta)^m) Abar. Autograd is not told. Whole
    numbers, such as counts among buffers, stay as they are.

    Args:
        tensors: A, each with blocks in its first dimension.
        averages: Abar, of the same shapes.
        strength: beta, in [0, 1].
        times: m, one number or one a block.
        renew: Give A new memory, so that what a forward pass saved for its gradients stays as it
            was. In place, gradients see what the merge leaves behind.
    """
    for value, average in zip(tensors, averages, strict=True):
        if not value.is_floating_point():
            continue
        if isinstance(times, int):
            merged = torch.lerp(value, average, 1 - (1 - strength) ** times)
        else:
            shares = 1 - (1 - strength) ** torch.tensor(times, dtype=torch.float64)
            share = shares.to(value.dtype).reshape(-1, *[1] * (value.ndim - 1))
            # Sent off without waiting for what a GPU is at.
            merged = torch.lerp(value, average, share.to(value.device, non_blocking=True))
        if renew:
            value.data = merged
        else:
            value.data.copy_(merged)


@contextmanager
def merge_by_block(merge: Callable[[int | Sequence[int]], None], num_blocks: int) -> Iterator[None]:
    """Merges around a forward pass as MOS's authors do inside of it: once for each block.

    Block b computes with b + 1 merges, and what follows the pass sees all. Gradients are those of
    block b's own weights, with b + 1 of them, where `merge` leaves alone what the pass saved.

    Args:
        merge: Merges every block as often as it is told, by block or all alike.
        num_blocks: Number of blocks, L.
    """
    merge(range(1, num_blocks + 1))
    yield
    merge(range(num_blocks - 1, -1, -1))


def universal_set(sets: Sequence[Tensor]) -> list[Tensor]:
    """Returns one set out of many (TUNA): entry by entry the strongest with the prevailing sign.

    The sign is that of the mean over all sets, the value the largest in magnitude among the sets
    that have it. Whole numbers, such as counts among buffers, are those of the last set.

    Args:
        sets: The tensors of a set, each with the sets in its first dimension.

    Example:
        >>> rows = torch.tensor([[0.4, -0.3, 0.1], [0.2, 0.5, -0.3], [-0.1, 0.1, -0.2]])
        >>> [round(value, 1) for value in universal_set([rows])[0].tolist()]
        [0.4, 0.5, -0.3]
    """
    return [_strongest(value) if value.is_floating_point() else value[-1] for value in sets]


def _strongest(values: Tensor) -> Tensor:
    sign = values.mean(dim=0).sign()
    return sign * (sign * values).clamp_min(0).amax(dim=0)


def fisher_average(
    old: Tensor, new: Tensor, old_fisher: Tensor, new_fisher: Tensor, share: float
) -> Tensor:
    """Returns the average of two tensors, entry by entry weighted by their Fisher information.

    ((1 - a) F_old old + a F_new new) / ((1 - a) F_old + a F_new); the plain average where both
    know nothing.

    Args:
        old: The one tensor.
        new: The other.
        old_fisher: F of the one, at least 0, of the same shape.
        new_fisher: F of the other.
        share: a, of the new one, in [0, 1].

    Example:
        >>> one = torch.ones(1)
        >>> round(fisher_average(one, 2 * one, 1e-4 * one, 1e-5 * one, 0.4).item(), 4)
        1.0625
    """
    kept, taken = (1 - share) * old_fisher.double(), share * new_fisher.double()
    total = kept + taken
    known = (kept * old + taken * new) / torch.where(total > 0, total, 1)
    return torch.where(total > 0, known, (1 - share) * old + share * new).to(old.dtype)


def orthogonality_term(up: Tensor, stored: Tensor) -> Tensor:
    """Returns how alike the average rows of up-projections are, summed over the stored sets.

    Args:
        up: Of the set in training, by block.
        stored: Of the stored sets.

    Shape:
        up: (L, D, R). stored: (T, L, D, R). Output: scalar.

    Example:
        >>> up = torch.tensor([[[3.0, 4.0], [0.0, 2.0]]])  # mean row of length 1: (0.3, 0.9)
        >>> round(orthogonality_term(up, up[None]).item(), 4)
        0.9
    """
    own, others = (
        nn.functional.normalize(each, dim=-1).mean(dim=-2) for each in (up, stored.to(up.dtype))
    )
    return (own * others).sum(dim=-1).abs().mean(dim=-1).sum()
