"""Gaussians of classes: what is kept of images that are gone, and samples of features from it.

A class is a mixture of components; a component has mean mu, spread s and factor F and stands for

    N(mu, diag(s^2) + F' F),     a sample is  mu + s * u + F' v,   u, v standard normal

so nothing is decomposed when samples are drawn. Four ways to fit n features of a class, all with
`FLOOR` on the diagonal, so that no covariance is singular:

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

from typing import Final, Literal

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError

__all__ = ["FLOOR", "ClassGaussians", "Statistics"]

Statistics = Literal["full", "low_rank", "diagonal", "centroids"]

FLOOR: Final = 1e-4  # added to every variance, as the authors do


class ClassGaussians(nn.Module):
    """Components by class; grows by class.

    Args:
        num_features: D.
        kind: How a class is fitted.
        rank: Directions kept by `low_rank`.
        centroids: Most clusters of `centroids`.

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

    def __init__(
        self,
        num_features: int,
        kind: Statistics = "low_rank",
        *,
        rank: int = 128,
        centroids: int = 10,
    ) -> None:
        super().__init__()
        self.kind, self.rank, self.centroids = kind, rank, centroids
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
            self._append(label, 1, features[0], variance, features[:0])
            return False
        if self.kind == "centroids":
            self._add_clusters(label, features)
            return True
        mean = features.mean(dim=0)
        centred = (features - mean) / (len(features) - 1) ** 0.5
        variance = (centred**2).sum(dim=0)
        factor = centred[:0]
        if self.kind != "diagonal":
            # Rows of S V' instead of a Cholesky factor: exact for any rank, never fails.
            _, values, directions = torch.linalg.svd(centred, full_matrices=False)
            kept = min(len(features) - 1, len(mean))
            kept = min(kept, self.rank) if self.kind == "low_rank" else kept
            factor = (values[:, None] * directions)[:kept]
        rest = (variance - (factor**2).sum(dim=0)).clamp_min(0)
        self._append(label, len(features), mean, rest, factor)
        return True

    def _add_clusters(self, label: int, features: Tensor) -> None:
        distinct = len(torch.unique(features, dim=0))
        model = KMeans(min(self.centroids, distinct), n_init=10, random_state=0)
        clusters = torch.from_numpy(model.fit_predict(features.cpu().numpy()))
        for cluster in torch.unique(clusters).tolist():
            rows = features[(clusters == cluster).to(features.device)]
            variance = rows.var(dim=0, correction=0)
            self._append(label, len(rows), rows.mean(dim=0), variance, rows[:0])

    def _append(
        self, label: int, share: int, mean: Tensor, variance: Tensor, factor: Tensor
    ) -> None:
        self.labels = functional.pad(self.labels, (0, 1), value=label)
        self.shares = functional.pad(self.shares, (0, 1), value=float(share))
        self.means = torch.cat([self.means, mean[None].to(self.means)])
        spread = (variance + FLOOR).sqrt()
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
    def sample(self, per_class: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws features of every class, components by their shares; classes in rising order.

        Args:
            per_class: Samples a class.
            generator: Source of randomness, on the CPU.

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
        start = 0
        for index, count in enumerate(counts):
            rows = order[start : start + count]
            features[rows] = self._draw(index, count, generator)
            start += count
        return features, classes.repeat_interleave(per_class)

    def _draw(self, index: int, count: int, generator: torch.Generator) -> Tensor:
        factor = self.factors[index]
        noise = torch.randn(count, self.means.shape[1] + len(factor), generator=generator)
        noise = noise.to(factor.device)
        along, alone = noise[:, : len(factor)], noise[:, len(factor) :]
        return torch.addmm(self.means[index] + alone * self.spreads[index], along, factor)

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
        for name in ("labels", "shares", "means", "spreads", "factors"):
            like = state[f"{prefix}{name}"]
            setattr(self, name, torch.zeros_like(like, device=getattr(self, name).device))
        super()._load_from_state_dict(state, prefix, *rest)
