"""Scores that tell images of known classes from others: the larger, the stranger.

With z the logits of an image, f its feature, mu_c the mean of class c, Sigma the covariance that
all classes share, mu_0 and Sigma_0 mean and covariance of all images together, both covariances
shrunken (`cl_adapters.heads.discriminant`):

    probability   log((1 - p) / p), p = max_c softmax(z)_c
    energy        -log sum_c exp(z_c)
    mahalanobis   min_c (f - mu_c)' Sigma^-1 (f - mu_c)
    relative      the same less (f - mu_0)' Sigma_0^-1 (f - mu_0)
    cosine        1 - max_c cos(f, mu_c)

References: Dan Hendrycks, Kevin Gimpel, "A Baseline for Detecting Misclassified and
Out-of-Distribution Examples in Neural Networks", ICLR 2017, arXiv:1610.02136. Weitang Liu, Xiaoyun
Wang, John Owens, Yixuan Li, "Energy-based Out-of-distribution Detection", NeurIPS 2020,
arXiv:2010.03759. Kimin Lee, Kibok Lee, Honglak Lee, Jinwoo Shin, "A Simple Unified Framework for
Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS 2018, arXiv:1807.03888. Jie
Ren, Stanislav Fort, Jeremiah Liu, Abhijit Guha Roy, Shreyas Padhy, Balaji Lakshminarayanan, "A
Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection", 2021, arXiv:2106.09022.

Shapes: B batch, D features, C columns of logits.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Final, Literal

import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError, unknown_name
from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.heads.prototypes import PrototypeHead

__all__ = [
    "SCORES",
    "ClassMahalanobis",
    "CosineDistance",
    "Energy",
    "LargestProbability",
    "RelativeMahalanobis",
    "Score",
    "make_score",
]


class Score(nn.Module, ABC):
    """How strange an image is; its state is what it keeps of images of known classes.

    Args:
        num_features: D.
    """

    reads: ClassVar[Literal["logits", "features"]]

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Takes in images of known classes; a score of logits keeps nothing of them.

        Shape:
            features: (B, D). labels: (B,), from 0.
        """

    @abstractmethod
    def forward(self, rows: Tensor) -> Tensor:
        """Returns the score of each image.

        Shape:
            rows: logits (B, C) or features (B, D), as `reads` says. Output: (B,), float64.

        Raises:
            InputError: If a score of features has seen no image.
        """


class LargestProbability(Score):
    """The odds against the likeliest class; their logarithm tells 1 - 1e-20 from 1."""

    reads = "logits"

    def forward(self, rows: Tensor) -> Tensor:
        """Returns the score of each image.

        Shape:
            rows: (B, C). Output: (B,), float64; the lowest there is if C is 1.

        Example:
            >>> LargestProbability(1)(torch.tensor([[0.0, 0.0, 0.0], [50.0, 0.0, -90.0]])).tolist()
            [0.6931471805599453, -50.0]
        """
        logits = rows.double()
        largest, place = logits.max(dim=1, keepdim=True)
        others = logits.scatter(1, place, -math.inf).logsumexp(dim=1)
        return (others - largest[:, 0]).clamp_min(torch.finfo(torch.float64).min)


class Energy(Score):
    """The free energy; says nothing where a method gives logarithms of probabilities as logits."""

    reads = "logits"

    def forward(self, rows: Tensor) -> Tensor:
        """Returns the score of each image.

        Shape:
            rows: (B, C). Output: (B,), float64.
        """
        return -rows.double().logsumexp(dim=1)


class ClassMahalanobis(Score):
    """The squared distance to the nearest class mean, in units of the classes' shared spread.

    Example:
        >>> score = ClassMahalanobis(1)
        >>> score.add(torch.tensor([[-1.0], [1.0], [9.0], [11.0]]), torch.tensor([0, 0, 1, 1]))
        >>> score(torch.tensor([[0.0], [8.0], [5.0]])).round(decimals=6).tolist()
        [0.0, 2.0, 12.5]
    """

    reads = "features"

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.classes = LinearDiscriminant(num_features)

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Takes in images of known classes.

        Shape:
            features: (B, D). labels: (B,), from 0.
        """
        self.classes.add_classes(labels.tolist())
        self.classes.add(features, labels)

    def forward(self, rows: Tensor) -> Tensor:
        """Returns the score of each image.

        Shape:
            rows: (B, D). Output: (B,), float64.
        """
        return _nearest(self.classes, rows)


class RelativeMahalanobis(ClassMahalanobis):
    """The same less the distance to all images together: directions that all share cancel out."""

    def forward(self, rows: Tensor) -> Tensor:
        """Returns the score of each image.

        Shape:
            rows: (B, D). Output: (B,), float64.
        """
        return _nearest(self.classes, rows) - _nearest(_as_one(self.classes), rows)


class CosineDistance(Score):
    """The cosine distance to the nearest class mean."""

    reads = "features"

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.classes = PrototypeHead(num_features, scale=1.0)

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Takes in images of known classes.

        Shape:
            features: (B, D). labels: (B,), from 0.
        """
        self.classes.add_classes(labels.tolist())
        self.classes.add(features, labels)

    def forward(self, rows: Tensor) -> Tensor:
        """Returns the score of each image.

        Shape:
            rows: (B, D). Output: (B,), float64, in [0, 2].
        """
        _check_seen(self.classes.counts)
        cosines: Tensor = self.classes(rows)
        return 1 - cosines.amax(dim=1).double()


SCORES: Final[dict[str, type[Score]]] = {
    "probability": LargestProbability,
    "energy": Energy,
    "mahalanobis": ClassMahalanobis,
    "relative": RelativeMahalanobis,
    "cosine": CosineDistance,
}


def make_score(name: str, num_features: int) -> Score:
    """Returns a new score.

    Args:
        name: One of `SCORES`.
        num_features: D.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in SCORES:
        raise unknown_name("score", name, SCORES)
    return SCORES[name](num_features)


def _check_seen(counts: Tensor) -> None:
    if not bool((counts > 0).any()):
        raise InputError("a score of features must have seen images of known classes, got none")


def _nearest(classes: LinearDiscriminant, features: Tensor) -> Tensor:
    """Returns the squared Mahalanobis distance to the nearest group that is not empty, (B,)."""
    _check_seen(classes.counts)
    filled = classes.counts > 0
    means = classes.sums[filled] / classes.counts[filled, None]
    root = torch.linalg.cholesky(classes.covariance)
    # Centred first: what all share would else take digits from what sets them apart.
    centre = means.mean(dim=0)
    points, targets = (
        torch.linalg.solve_triangular(root, (each - centre).T, upper=False).T
        for each in (features.double(), means)
    )
    return torch.cdist(points, targets).amin(dim=1) ** 2


def _as_one(classes: LinearDiscriminant) -> LinearDiscriminant:
    """Returns the groups' images as one group; they need not be seen again."""
    filled = classes.counts > 0
    sums, counts = classes.sums[filled], classes.counts[filled]
    total, count = sums.sum(dim=0), counts.sum()
    apart = sums / counts[:, None] - total / count
    one = LinearDiscriminant(len(total)).to(total.device)
    one.sums, one.counts = total[None], count[None]
    one.scatter = classes.scatter + (apart * counts[:, None]).T @ apart
    return one
