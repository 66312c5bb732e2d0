"""Distance from the reference's mean in units of its own spread.

The distance of a feature f is sqrt((f - mu)' Sigma^-1 (f - mu)), with Sigma the covariance of the
reference shrunken after Ledoit and Wolf; the score of a window is its mean distance.

References: P. C. Mahalanobis, "On the Generalized Distance in Statistics", 1936. Olivier Ledoit,
Michael Wolf, "A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices", Journal of
Multivariate Analysis 88(2), 2004.
"""

from typing import ClassVar

import numpy as np
import torch
from sklearn.covariance import (
    empirical_covariance,
    ledoit_wolf_shrinkage,
    shrunk_covariance,
)
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.shift.base import Detector, Verdict
from cl_adapters.shift.calibration import mean_threshold
from cl_adapters.shift.folds import check_folds, held_out_scores

__all__ = ["Mahalanobis"]


class Mahalanobis(Detector):
    """Fires where a window lies further from the reference's mean than usual.

    The level comes from distances of samples that the mean and the covariance did not see, in five
    folds (`cl_adapters.shift.calibration`).

    Args:
        num_features: D.
        false_alarm: Share of known windows that fire.
        seed: Seed of the folds and of the calibration.
        folds: Number of folds, at least 2.
        buffer: Distances that are kept for the calibration.
    """

    min_samples: ClassVar[int] = 10

    def __init__(
        self,
        num_features: int,
        *,
        false_alarm: float = 0.01,
        seed: int = 0,
        folds: int = 5,
        buffer: int = 500,
    ) -> None:
        super().__init__(num_features, false_alarm=false_alarm, seed=seed)
        check_folds(folds)
        self.folds = folds
        self.register_buffer("mean", torch.zeros(num_features, dtype=torch.float64))
        self.register_buffer("root", torch.zeros(num_features, num_features, dtype=torch.float64))
        self.register_buffer("distances", torch.zeros(buffer, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.mean: Tensor
        self.root: Tensor
        self.distances: Tensor
        self.count: Tensor

    def reset(self) -> None:
        """Forgets the reference."""
        self.count.zero_()
        self._thresholds = {}

    def fit(self, features: Tensor) -> None:
        """Takes mean and covariance, and distances of samples that either did not see."""
        features = self.checked(features, self.min_samples)
        views = features if features.ndim == 3 else features[None]
        self.reset()
        # One shrinkage for all folds: more of it, as fewer samples ask for, shortens distances.
        points = views.flatten(0, 1).double().cpu().numpy()
        self._shrinkage = float(ledoit_wolf_shrinkage(points))
        found = held_out_scores(views, self.folds, self.seed, self._describe, self._distance)
        kept = found[: len(self.distances)]
        self.distances[: len(kept)] = kept
        self.count.fill_(len(kept))

    def _describe(self, rows: Tensor) -> None:
        points = rows.double().cpu().numpy()
        covariance = shrunk_covariance(empirical_covariance(points), shrinkage=self._shrinkage)
        values, vectors = np.linalg.eigh(covariance)
        # A reference without any spread must not turn rounding errors into infinite distances.
        values = values.clip(values.max() * 1e-12 or 1.0)
        self.mean.copy_(torch.from_numpy(points.mean(axis=0)))
        self.root.copy_(torch.from_numpy(vectors / np.sqrt(values)))

    def _distance(self, rows: Tensor) -> Tensor:
        distances: Tensor = ((rows.double() - self.mean) @ self.root).norm(dim=1)
        return distances

    def distance(self, features: Tensor) -> Tensor:
        """Returns the distance of each sample from the reference's mean.

        Shape:
            features: (n, D). Output: (n,), float64.
        """
        return self._distance(self.checked(features))

    def sample_scores(self, features: Tensor) -> Tensor:
        """Returns the distances, whose mean is the score of a window."""
        return self.distance(features)

    def check(self, features: Tensor) -> Verdict:
        """Compares the mean distance of a window with the threshold for its size."""
        if not int(self.count):
            raise InputError("a detector must be fitted before it is asked")
        distances = self.distance(features)
        size = len(distances)
        if size not in self._thresholds:
            known = self.distances[: int(self.count)]
            self._thresholds[size] = mean_threshold(known, size, self.false_alarm, self.seed)
        return Verdict(distances.mean().item(), self._thresholds[size])
