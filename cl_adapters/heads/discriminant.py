"""Linear discriminant analysis that learns one group of samples after the other.

Groups are Gaussians with one shared covariance: the classifier is linear, in closed form, and
exact for any order in which groups or samples come, since it needs sums only. With n_c samples of
mean mu_c in group c and S the pooled covariance,

    Sigma = (1 - rho) S + rho (tr S / D) I           rho: oracle approximating shrinkage
    logit_c(f) = mu_c' Sigma^-1 f - mu_c' Sigma^-1 mu_c / 2        equal priors

Reference: Yilun Chen, Ami Wiesel, Yonina Eldar, Alfred Hero, "Shrinkage Algorithms for MMSE
Covariance Estimation", IEEE Transactions on Signal Processing 58(10), 2010 (rho, equation 23).

Shapes: B batch, D features, C groups = highest number seen + 1.
"""

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.earlier_names import earlier_method
from cl_adapters.heads.linear import UNSEEN_LOGIT

__all__ = ["LinearDiscriminant"]


class LinearDiscriminant(GrowingBuffers):
    """Gaussian groups with a shared covariance; grows by group and by sample.

    Args:
        num_features: D.
        unit_length: Look at the direction of features only, as class means by cosine do.

    Example:
        >>> head = LinearDiscriminant(2)
        >>> head.add_classes([0, 1])
        >>> points = torch.tensor([[0.0, 0.0], [0.0, 1.0], [4.0, 0.0], [4.0, 1.0]])
        >>> head.add(points, torch.tensor([0, 0, 1, 1]))
        >>> head(torch.tensor([[0.5, 3.0], [3.5, -3.0]])).argmax(dim=1).tolist()
        [0, 1]
    """

    def __init__(self, num_features: int, *, unit_length: bool = False) -> None:
        super().__init__()
        self.unit_length = unit_length
        zeros = torch.zeros(0, num_features, dtype=torch.float64)
        self.register_buffer("sums", zeros)
        self.register_buffer("counts", torch.zeros(0, dtype=torch.float64))
        # Sum over all samples of (f - mu_c)(f - mu_c)', kept centred: no cancellation.
        self.register_buffer(
            "scatter", torch.zeros(num_features, num_features, dtype=torch.float64)
        )
        self.sums: Tensor
        self.counts: Tensor
        self.scatter: Tensor
        self._columns: tuple[Tensor, Tensor] | None = None

    def add_classes(self, groups: Sequence[int]) -> None:
        """Makes room for groups that have none yet."""
        missing = max(groups, default=-1) + 1 - len(self.counts)
        if missing > 0:
            self.sums = functional.pad(self.sums, (0, 0, 0, missing))
            self.counts = functional.pad(self.counts, (0, missing))
            self._columns = None

    grow = earlier_method("grow", "add_classes")

    @torch.no_grad()
    def add(self, features: Tensor, groups: Tensor) -> None:
        """Adds samples to their groups.

        Shape:
            features: (B, D). groups: (B,), below C.
        """
        features = self._scaled(features)
        for group in torch.unique(groups).tolist():
            rows = features[groups == group]
            mean = rows.mean(dim=0)
            centred = rows - mean
            self.scatter += centred.T @ centred
            # Moving a mean adds the between-batch part of its group's scatter.
            count = self.counts[group].item()
            if count:
                shift = mean - self.sums[group] / count
                weight = count * len(rows) / (count + len(rows))
                self.scatter += weight * torch.outer(shift, shift)
            self.sums[group] += rows.sum(dim=0)
            self.counts[group] += len(rows)
        self._columns = None

    @property
    def covariance(self) -> Tensor:
        """The shrunken pooled covariance, (D, D) float64."""
        filled = int((self.counts > 0).sum())
        freedom = max(float(self.counts.sum()) - filled, 1.0)
        pooled = self.scatter / freedom
        size = len(pooled)
        trace, square = pooled.trace(), (pooled**2).sum()
        above = (1 - 2 / size) * square + trace**2
        below = (freedom + 1 - 2 / size) * (square - trace**2 / size)
        shrinkage = 1.0 if below <= 0 else min(1.0, float(above / below))
        level = float(trace) / size or 1.0  # a group of one sample has no spread at all
        identity = torch.eye(size, dtype=pooled.dtype, device=pooled.device)
        return (1 - shrinkage) * pooled + shrinkage * level * identity

    def _solve(self) -> tuple[Tensor, Tensor]:
        means = self.sums / self.counts.clamp_min(1)[:, None]
        weight = torch.linalg.solve(self.covariance, means.T).T
        return weight, -(weight * means).sum(dim=1) / 2

    def _scaled(self, features: Tensor) -> Tensor:
        features = features.double()
        return functional.normalize(features, dim=1) if self.unit_length else features

    def buffers_loaded(self) -> None:
        """Forgets the classifier of the sums before."""
        self._columns = None

    def forward(self, features: Tensor) -> Tensor:
        """Returns the log of each group's posterior; `UNSEEN_LOGIT` if empty.

        Shape:
            features: (B, D). Output: (B, C), float32.
        """
        if self._columns is None or self._columns[0].device != features.device:
            self._columns = self._solve()
        weight, bias = self._columns
        empty = self.counts == 0
        logits = functional.linear(self._scaled(features), weight, bias).masked_fill(empty, -inf)
        # What all groups share can be a million times what sets them apart: it leaves before the
        # digits do, and the likeliest group stays above those that are empty.
        return logits.log_softmax(dim=1).float().masked_fill(empty, UNSEEN_LOGIT)
