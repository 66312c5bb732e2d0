"""Clusters of one size, without chance."""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["balanced_clusters"]

_ROUNDS: Final = 50  # of k-means at most; it hardly ever takes so many


def balanced_clusters(rows: Tensor, count: int) -> Tensor:
    """Returns the cluster of each row, all of one size, by cosine; the same on each call.

    k-means from rows that lie far apart, each new centre where the nearest one is farthest. In
    each round rows go to the nearest centre that has room, which takes those nearest to it first.

    Args:
        rows: (H, D).
        count: E, a divisor of H.

    Returns:
        (H,) int64, below E, on the CPU.

    Example:
        >>> balanced_clusters(torch.tensor([[1.0, 0], [0.8, 0.2], [0, 1], [0.1, 0.9]]), 2).tolist()
        [0, 0, 1, 1]
    """
    unit = functional.normalize(rows.detach().cpu().double(), dim=1)
    centres = unit[(unit @ unit.mean(dim=0)).argmax()][None]
    while len(centres) < count:
        centres = torch.cat((centres, unit[(unit @ centres.T).amax(dim=1).argmin()][None]))
    found = _assigned(unit @ centres.T)
    for _ in range(_ROUNDS):
        sums = torch.zeros_like(centres).index_add_(0, found, unit)
        again = _assigned(unit @ functional.normalize(sums, dim=1).T)
        if torch.equal(again, found):
            break
        found = again
    return found


def _assigned(near: Tensor) -> Tensor:
    """Returns a cluster for each row of similarities (H, E), in equal numbers."""
    size, found = len(near) // near.shape[1], torch.full((len(near),), -1)
    left = near.clone()
    while bool((found < 0).any()):
        wish = left.argmax(dim=1)
        for cluster in range(near.shape[1]):
            room = size - int((found == cluster).sum())
            rows = ((found < 0) & (wish == cluster)).nonzero()[:, 0]
            order = near[rows, cluster].argsort(descending=True, stable=True)
            found[rows[order[:room]]] = cluster
            if len(rows) > room:
                left[:, cluster] = -torch.inf
    return found
