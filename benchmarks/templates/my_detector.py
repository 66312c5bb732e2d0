"""MyDetector: the feature whose mean moved furthest, in standard errors.

What the detector looks at, in three sentences.

Reference: authors, title, venue, year.

    score        max_d |mean_d(window) - mean_d(reference)| / (s_d sqrt(1 / n + 1 / N))
    threshold    the normal quantile at 1 - false_alarm / (2 D), Bonferroni over D features
"""

import math
from statistics import NormalDist
from typing import ClassVar

import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.shift import Detector, Verdict

__all__ = ["MyDetector"]


class MyDetector(Detector):
    """Compares the mean of each feature with the reference's."""

    min_samples: ClassVar[int] = 10

    def __init__(self, num_features: int, *, false_alarm: float = 0.01, seed: int = 0) -> None:
        super().__init__(num_features, false_alarm=false_alarm, seed=seed)
        # State is buffers, so that it is part of a checkpoint: means, deviations, and N.
        self.register_buffer("means", torch.zeros(num_features))
        self.register_buffer("deviations", torch.ones(num_features))
        self.register_buffer("count", torch.zeros(()))
        self.means: Tensor
        self.deviations: Tensor
        self.count: Tensor

    def fit(self, features: Tensor) -> None:
        """Learns means and deviations, of all views together, and forgets earlier ones."""
        rows = self.checked(features, self.min_samples).reshape(-1, self.num_features)
        self.means, self.deviations = rows.mean(dim=0), rows.std(dim=0)
        self.count = rows.new_tensor(float(features.shape[-2]))

    def check(self, features: Tensor) -> Verdict:
        """Judges a window, (n, D), and changes nothing."""
        rows = self.checked(features)
        if not self.count:
            raise InputError("MyDetector must be fitted before it is asked, call `fit` first")
        errors = self.deviations * (1 / len(rows) + 1 / self.count).sqrt()
        moved = (rows.mean(dim=0) - self.means).abs() / errors.clamp_min(1e-12)
        level = self.false_alarm / (2 * self.num_features)
        score = float(moved.max())
        return Verdict(score if math.isfinite(score) else 0.0, NormalDist().inv_cdf(1 - level))

    def reset(self) -> None:
        """Forgets the reference."""
        self.count = torch.zeros_like(self.count)
