"""Scores of samples that what is learned about the reference did not see."""

from collections.abc import Callable

import torch
from torch import Tensor

from cl_adapters.errors import InputError

__all__ = ["check_folds", "held_out_scores"]


def check_folds(folds: int) -> None:
    """Refuses a number of folds that leaves nothing to learn from.

    Raises:
        InputError: If it is below 2.
    """
    if folds < 2:
        raise InputError(f"`folds` must be at least 2, got {folds}")


def held_out_scores(
    views: Tensor,
    folds: int,
    seed: int,
    learn: Callable[[Tensor], None],
    score: Callable[[Tensor], Tensor],
) -> Tensor:
    """Returns the score of each sample after learning from the others, in an order that is drawn.

    At the end all samples have been learned from.

    Args:
        views: Of the samples; the first view is scored.
        folds: Number of folds.
        seed: Of the folds and of the order.
        learn: Takes note of rows (M, D), in place of those before.
        score: From samples (M, D) to scores (M,).

    Shape:
        views: (V, N, D). Output: (N,).
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(views.shape[1], generator=generator)
    unseen = []
    for part in torch.tensor_split(order, folds):
        others = order[~torch.isin(order, part)]
        learn(views[:, others].flatten(0, 1))
        unseen.append(score(views[0, part]))
    learn(views.flatten(0, 1))
    return torch.cat(unseen)[torch.randperm(len(order), generator=generator)]
