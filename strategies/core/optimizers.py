"""Optimisers and their schedules, as several methods have them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from cl_adapters.schedule import cosine

__all__ = ["adam", "clip_gradients", "no_optimizer", "set_cosine_rates", "set_step_rates", "sgd"]


def sgd(
    parameters: Sequence[nn.Parameter],
    lr: float,
    weight_decay: float,
    *,
    slower: nn.Module | None = None,
    share: float = 1.0,
    fused: bool = True,
) -> torch.optim.Optimizer:
    """Returns SGD with momentum 0.9.

    Args:
        parameters: What is trained.
        lr: Learning rate at the start.
        weight_decay: Of all parameters.
        slower: Whose parameters, among these, learn at another rate; None if all learn at one.
        share: That rate, as a share of `lr`.
        fused: All parameters in one operation, which fails where some had no gradient in the first
            step and have one in a later one.
    """
    groups = _groups(parameters, lr, slower, share)
    return torch.optim.SGD(groups, momentum=0.9, weight_decay=weight_decay, fused=fused)


def adam(
    parameters: Sequence[nn.Parameter],
    lr: float,
    *,
    slower: nn.Module | None = None,
    share: float = 1.0,
) -> torch.optim.Optimizer:
    """Returns Adam without weight decay, whose rates can be lowered; arguments as of `sgd`."""
    return torch.optim.Adam(_groups(parameters, lr, slower, share), fused=True)


def _groups(
    parameters: Sequence[nn.Parameter], lr: float, slower: nn.Module | None, share: float
) -> list[dict[str, Any]]:
    own = {id(value) for value in slower.parameters()} if slower is not None else set()
    groups: list[dict[str, Any]] = [
        {"params": [value for value in parameters if (id(value) in own) == is_own], "lr": rate}
        for is_own, rate in ([(False, lr), (True, lr * share)] if own else [(False, lr)])
    ]
    return [{**group, "initial_lr": group["lr"]} for group in groups]


def clip_gradients(optimizer: torch.optim.Optimizer, longest: float | None) -> None:
    """Shortens the gradients of all that an optimiser trains to a common length, if longer.

    Args:
        optimizer: Whose parameters.
        longest: The most that they are long together; None leaves them.
    """
    if longest is not None:
        trained = [value for group in optimizer.param_groups for value in group["params"]]
        nn.utils.clip_grad_norm_(trained, longest)


def set_cosine_rates(
    optimizer: torch.optim.Optimizer,
    epoch: int,
    epochs: int,
    share: Callable[[int, int], float] = cosine,
) -> None:
    """Lowers learning rates along a cosine that reaches 0 after the last epoch, or another curve.

    Args:
        optimizer: Whose groups have an `initial_lr`, as those of `sgd` and `adam`.
        epoch: The epoch that begins, from 0.
        epochs: Number of epochs.
        share: From an epoch and the number of epochs to a share of the rate.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * share(epoch, epochs)


def set_step_rates(optimizer: torch.optim.Optimizer, epoch: int, milestone: int) -> None:
    """Lowers learning rates to a tenth from an epoch on.

    Args:
        optimizer: Whose groups have an `initial_lr`, as those of `sgd`.
        epoch: The epoch that begins, from 0.
        milestone: The first epoch at a tenth.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * (0.1 if epoch >= milestone else 1.0)


def no_optimizer() -> torch.optim.Optimizer:
    """Returns an optimiser of nothing: Avalanche wants one, and torch refuses it no parameters."""
    return torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.0)
