"""Similarity to a hyperdimensional memory of the reference.

With m the mean of the reference, s the root of its mean squared distance from m, and P (D + 1, H)
fixed random directions in many more dimensions,

    b(f) = sign(P' [(f - m) / s, 1]),  memory = sum of b over the reference
    score of a sample = 1 - cos(b(f), memory)

The score of a window is the mean of these. Signs of two inputs differ in a share of the dimensions
that is the angle between them over pi. The 1 is ours: around its own mean a reference has no
direction of its own, and a memory of f - m alone saw no shift, however large. A memory is of
constant size, and knows no covariance.

Our variant of EAR's detector, of which only the abstract was seen, after HDFF, which keeps real
numbers in place of signs and a memory a class. Reference:
Samuel Wilson, Tobias Fischer, Niko Sünderhauf, Feras Dayoub, "Hyperdimensional Feature Fusion for
Out-of-Distribution Detection", WACV 2023.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.errors import InputError, check_positive
from cl_adapters.shift.base import Detector, Verdict
from cl_adapters.shift.calibration import mean_threshold
from cl_adapters.shift.folds import check_folds, held_out_scores

__all__ = ["HyperdimensionalMemory", "hyper_directions", "hyper_signs"]


def hyper_directions(num_features: int, dimensions: int, seed: int) -> Tensor:
    """Returns fixed random directions, (D + 1, H): the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((num_features + 1, dimensions), generator=generator)


def hyper_signs(rows: Tensor, centre: Tensor, spread: Tensor, directions: Tensor) -> Tensor:
    """Returns the signs of rows, -1 and 1.

    Shape:
        rows: (n, D). centre: (D,). spread: a scalar. directions: (D + 1, H). Output: (n, H).
    """
    inputs = functional.pad((rows - centre) / spread, (0, 1), value=1.0).float()
    return torch.where(inputs @ directions < 0, -1.0, 1.0)


class HyperdimensionalMemory(Detector):
    """Fires where a window is less like the memory of the reference than usual.

    The level comes from scores of samples that mean and memory did not see, in five folds
    (`cl_adapters.shift.calibration`).

    Args:
        num_features: D.
        false_alarm: Share of known windows that fire.
        seed: Seed of the directions, the folds and the calibration.
        dimensions: H.
        folds: Number of folds, at least 2.
        buffer: Scores that are kept for the calibration.
    """

    min_samples: ClassVar[int] = 10

    def __init__(
        self,
        num_features: int,
        *,
        false_alarm: float = 0.01,
        seed: int = 0,
        dimensions: int = 2048,
        folds: int = 5,
        buffer: int = 500,
    ) -> None:
        super().__init__(num_features, false_alarm=false_alarm, seed=seed)
        check_positive("dimensions", dimensions)
        check_folds(folds)
        self.dimensions, self.folds = dimensions, folds
        self.register_buffer("mean", torch.zeros(num_features, dtype=torch.float64))
        self.register_buffer("spread", torch.ones((), dtype=torch.float64))
        self.register_buffer("memory", torch.zeros(dimensions, dtype=torch.int64))
        self.register_buffer("scores", torch.zeros(buffer, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        # What the directions are drawn from: they are no part of the state, which stays small.
        self.register_buffer("drawn_from", torch.tensor(seed))
        self.mean: Tensor
        self.spread: Tensor
        self.memory: Tensor
        self.scores: Tensor
        self.count: Tensor
        self.drawn_from: Tensor

    def reset(self) -> None:
        """Forgets the reference."""
        self.count.zero_()
        self.memory.zero_()
        self._thresholds = {}

    def fit(self, features: Tensor) -> None:
        """Takes mean and memory, and scores of samples that either did not see."""
        features = self.checked(features, self.min_samples)
        views = (features if features.ndim == 3 else features[None]).double()
        self.reset()
        self.drawn_from.fill_(self.seed)
        directions = self._directions()
        kept = held_out_scores(
            views,
            self.folds,
            self.seed,
            lambda rows: self._remember(rows, directions),
            lambda rows: self._score(rows, directions),
        )[: len(self.scores)]
        self.scores[: len(kept)] = kept
        self.count.fill_(len(kept))

    def _directions(self) -> Tensor:
        found = hyper_directions(self.num_features, self.dimensions, int(self.drawn_from))
        return found.to(self.mean.device)

    def _signs(self, rows: Tensor, directions: Tensor) -> Tensor:
        return hyper_signs(rows, self.mean, self.spread, directions)

    def _remember(self, rows: Tensor, directions: Tensor) -> None:
        self.mean.copy_(rows.mean(dim=0))
        # A reference without any spread must not turn rounding errors into infinite distances.
        spread = (rows - self.mean).square().sum(dim=1).mean().sqrt()
        self.spread.copy_(spread.clamp_min(1e-6 * (1 + self.mean.norm())))
        self.memory.copy_(self._signs(rows, directions).sum(dim=0).long())

    def _score(self, rows: Tensor, directions: Tensor) -> Tensor:
        memory = functional.normalize(self.memory.double(), dim=0)
        cosines = self._signs(rows, directions).double() @ memory / math.sqrt(self.dimensions)
        return 1 - cosines

    def sample_scores(self, features: Tensor) -> Tensor:
        """Returns 1 - cosine to the memory of each sample, (n,), from 0 to 2."""
        rows = self.checked(features).double().to(self.mean.device)
        return self._score(rows, self._directions())

    def check(self, features: Tensor) -> Verdict:
        """Compares the mean score of a window with the threshold for its size."""
        if not int(self.count):
            raise InputError("a detector must be fitted before it is asked")
        scores = self.sample_scores(features)
        size = len(scores)
        if size not in self._thresholds:
            known = self.scores[: int(self.count)]
            self._thresholds[size] = mean_threshold(known, size, self.false_alarm, self.seed)
        return Verdict(scores.mean().item(), self._thresholds[size])
