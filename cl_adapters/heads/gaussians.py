"""Gaussians of classes: what is kept of images that are gone, and samples of features from it.

A class is a mixture of components; a component has mean mu, spread s and factor F and stands for

    N(mu, diag(s^2) + F' F),     a sample is  mu + s * u + F' v,   u, v standard normal

so nothing is decomposed when samples are drawn. Four ways to fit n features of a class, all with
a floor on the diagonal, so that no covariance is singular:

    full         F' F is the unbiased covariance, rank min(n - 1, D)
    low_rank     F holds its `rank` strongest directions, s^2 the rest of its diagonal
    diagonal     s^2 is its diagonal
    centroids    k-means; a component a cluster, s^2 the biased variance inside it (MOS' name:
                 multi-centroid)

A class without spread of its own, of one image, takes that of an average class.

Reference: Hai-Long Sun, Da-Wei Zhou, Hanbin Zhao, Le Gan, De-Chuan Zhan, Han-Jia Ye, "MOS: Model
Surgery for Pre-Trained Model-Based Class-Incremental Learning", AAAI 2025, arXiv:2412.09441.

Shapes: D features, M components, K rows of a factor.
"""

import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.errors import InputError
from cl_adapters.heads.fitting import FLOOR, Component, Statistics, components

__all__ = ["FLOOR", "ClassGaussians", "Statistics"]


class ClassGaussians(GrowingBuffers):
    """Components by class; grows by class.

    Args:
        num_features: D.
        kind: How a class is fitted.
        rank: Directions kept by `low_rank`.
        centroids: Most clusters of `centroids`.
        floor: Added to every variance, above 0.

    Attributes:
        labels: (M,), the class of each component.
        shares: (M,), the number of images behind each.
        means, spreads: (M, D).
        factors: (M, K, D); rows that a component lacks are zero.

    Example:
        >>> classes = ClassGaussians(2)
        >>> classes.add(7, torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
        True
        >>> features, targets = classes.sample(3, torch.Generator().manual_seed(0))
        >>> features.shape, targets.tolist()
        (torch.Size([3, 2]), [7, 7, 7])
    """

    grows_by_learning = True

    def __init__(
        self,
        num_features: int,
        kind: Statistics = "low_rank",
        *,
        rank: int = 128,
        centroids: int = 10,
        floor: float = FLOOR,
    ) -> None:
        super().__init__()
        self.kind, self.rank, self.centroids, self.floor = kind, rank, centroids, floor
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("shares", torch.zeros(0))
        self.register_buffer("means", torch.zeros(0, num_features))
        self.register_buffer("spreads", torch.zeros(0, num_features))
        self.register_buffer("factors", torch.zeros(0, 0, num_features))
        self.labels: Tensor
        self.shares: Tensor
        self.means: Tensor
        self.spreads: Tensor
        self.factors: Tensor

    @torch.no_grad()
    def add(self, label: int, features: Tensor) -> bool:
        """Fits a class, or what one more experience brought of it.

        Returns:
            Whether it has a spread of its own; one image has none.

        Shape:
            features: (n, D), n at least 1.

        Raises:
            InputError: If a feature is not finite.
        """
        features = features.double()
        if not bool(torch.isfinite(features).all()):
            raise InputError(f"features of class {label} must be finite, got NaN or infinity")
        if len(features) == 1:
            # The diagonal of an average class; of a narrow one if there is no class yet.
            known = (self.spreads**2 + (self.factors**2).sum(dim=1)).double()
            variance = known.mean(dim=0) if len(known) else torch.zeros_like(features[0])
            self._append(label, Component(1, features[0], variance, features[:0]))
            return False
        for each in components(features, self.kind, rank=self.rank, centroids=self.centroids):
            self._append(label, each)
        return True

    def add_all(self, features: Tensor, labels: Tensor) -> list[int]:
        """Fits every class that occurs; returns those without a spread of their own.

        Shape:
            features: (n, D). labels: (n,).
        """
        found, counts = torch.unique(labels, return_counts=True)
        # Classes of one image come last: they borrow from the others, whatever their labels.
        classes = torch.cat((found[counts > 1], found[counts == 1])).tolist()
        return [label for label in classes if not self.add(label, features[labels == label])]

    def _append(self, label: int, component: Component) -> None:
        factor = component.factor
        self.labels = functional.pad(self.labels, (0, 1), value=label)
        self.shares = functional.pad(self.shares, (0, 1), value=float(component.share))
        self.means = torch.cat([self.means, component.mean[None].to(self.means)])
        spread = (component.variance + self.floor).sqrt()
        self.spreads = torch.cat([self.spreads, spread[None].to(self.spreads)])
        rows = max(self.factors.shape[1], len(factor))
        held = functional.pad(self.factors, (0, 0, 0, rows - self.factors.shape[1]))
        new = functional.pad(factor.to(held), (0, 0, 0, rows - len(factor)))
        self.factors = torch.cat([held, new[None]])

    def class_means(self, *, without: frozenset[int] = frozenset()) -> Tensor:
        """Returns the mean of each class, by rising label, but those left out.

        Shape:
            Output: (C, D).
        """
        kept = [label for label in torch.unique(self.labels).tolist() if label not in without]
        rows = [self.labels == label for label in kept]
        means = [(self.shares[row] / self.shares[row].sum()) @ self.means[row] for row in rows]
        return torch.stack(means) if means else self.means[:0]

    @torch.no_grad()
    def sample(
        self, per_class: int, generator: torch.Generator, *, mean_scales: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws features of every class, components by their shares; classes in rising order.

        Args:
            per_class: Samples a class.
            generator: Source of randomness, on the CPU.
            mean_scales: (C,), factor on the means of each class; None leaves them as they are.

        Shape:
            Output: (C * per_class, D), (C * per_class,).
        """
        classes = torch.unique(self.labels)
        weights = torch.where(self.labels == classes[:, None], self.shares, 0.0)
        component = torch.multinomial(
            weights.cpu(), per_class, replacement=True, generator=generator
        ).flatten()
        order = torch.argsort(component, stable=True)  # components become contiguous
        counts = torch.bincount(component, minlength=len(self.labels)).tolist()
        features = torch.empty(len(component), self.means.shape[1], device=self.means.device)
        means = self.means
        if mean_scales is not None:
            means = means * mean_scales.to(means)[torch.searchsorted(classes, self.labels), None]
        start = 0
        for index, count in enumerate(counts):
            rows = order[start : start + count]
            features[rows] = self._draw(index, means[index], count, generator)
            start += count
        return features, classes.repeat_interleave(per_class)

    def _draw(self, index: int, mean: Tensor, count: int, generator: torch.Generator) -> Tensor:
        factor = self.factors[index]
        noise = torch.randn(count, len(mean) + len(factor), generator=generator)
        noise = noise.to(factor.device)
        along, alone = noise[:, : len(factor)], noise[:, len(factor) :]
        return torch.addmm(mean + alone * self.spreads[index], along, factor)
