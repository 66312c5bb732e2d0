"""Fits the components that stand for the features of a class (see `gaussians.py`).

Shapes: n features of a class, D their width, K rows of a factor.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

__all__ = ["FLOOR", "Component", "Statistics", "components"]

Statistics = Literal["full", "low_rank", "diagonal", "centroids"]

FLOOR: Final = 1e-4  # added to every variance, as the authors do


@dataclass(frozen=True, eq=False)
class Component:
    """A Gaussian N(mean, diag(variance) + F' F).

    Attributes:
        share: Number of features behind it.
        mean: (D,).
        variance: (D,), at least 0; `FLOOR` is not added yet.
        factor: F, (K, D).
    """

    share: int
    mean: Tensor
    variance: Tensor
    factor: Tensor


def components(
    features: Tensor, kind: Statistics, *, rank: int, centroids: int
) -> Iterator[Component]:
    """Yields the components that are fitted to the features of a class.

    Args:
        features: (n, D) float64, n at least 2.
        kind: How they are fitted.
        rank: Directions kept by `low_rank`.
        centroids: Most clusters of `centroids`.
    """
    if kind == "centroids":
        yield from _clusters(features, centroids)
        return
    mean = features.mean(dim=0)
    centred = (features - mean) / (len(features) - 1) ** 0.5
    variance = (centred**2).sum(dim=0)
    factor = centred[:0]
    if kind != "diagonal":
        # Rows of S V' instead of a Cholesky factor: exact for any rank, never fails.
        _, values, directions = torch.linalg.svd(centred, full_matrices=False)
        kept = min(len(features) - 1, len(mean))
        kept = min(kept, rank) if kind == "low_rank" else kept
        factor = (values[:, None] * directions)[:kept]
    rest = (variance - (factor**2).sum(dim=0)).clamp_min(0)
    yield Component(len(features), mean, rest, factor)


def _clusters(features: Tensor, most: int) -> Iterator[Component]:
    from sklearn.cluster import KMeans  # noqa: PLC0415 - a second to load, for one kind only

    distinct = len(torch.unique(features, dim=0))
    model = KMeans(min(most, distinct), n_init=10, random_state=0)
    clusters = torch.from_numpy(model.fit_predict(features.cpu().numpy()))
    for cluster in torch.unique(clusters).tolist():
        rows = features[(clusters == cluster).to(features.device)]
        yield Component(len(rows), rows.mean(dim=0), rows.var(dim=0, correction=0), rows[:0])
