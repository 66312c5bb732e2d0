"""Distance to each class's mean under a covariance of its own (FeCAM).

Of the features of a class come a count, a mean mu and a scatter, so that any order and any split of
its images gives the same. With f a feature, n(f) the same at length 1 and Sigma the unbiased
covariance of a class, (D, D):

    shrunk       S = Sigma + a1 mean(diagonal of Sigma) I + a2 mean(the rest of Sigma) (1 1' - I)
    normalised   R_ij = S_ij / sqrt(S_ii S_jj)
    distance     d = (n(f) - mu)' R^+ (n(f) - mu)          logits: the softmax of -scale d, as logs

R takes the differences as they are, not divided by sqrt(S_ii): a matrix of correlations stands
where a covariance is expected, so that how far a class spreads as a whole does not count.

Two forms:

    authors      statistics of n(f); S as above
    pilot        what LAMDA-PILOT computes: statistics of f as it is, S = Sigma + 100 I, R the
                 correlations between the rows of S, mu at length 1

A class without spread of its own, of one image or of equal ones, takes the average covariance of
those that have one, or I where none has.

Reference: Dipam Goswami, Yuyang Liu, Bartlomiej Twardowski, Joost van de Weijer, "FeCAM: Exploiting
the Heterogeneity of Class Distributions in Exemplar-Free Continual Learning", NeurIPS 2023,
arXiv:2309.14062.

Shapes: B batch, D features, K classes with a row, C columns = highest label seen + 1.
"""

from collections.abc import Sequence
from math import inf
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.heads.linear import UNSEEN_LOGIT

__all__ = ["Form", "MahalanobisHead", "correlations", "shrunk", "tukey"]

Form = Literal["authors", "pilot"]
_PILOT_SHRINK: Final = 100.0
_NO_SPREAD: Final = 1e-10  # variance that equal samples may have by rounding


class MahalanobisHead(GrowingBuffers):
    """The nearest class mean, each class with its own shrunk and normalised covariance.

    Args:
        num_features: D; a class takes D x D numbers of 4 bytes.
        form: Which of the two.
        shrinkage: a1 and a2, not below 0; the form `pilot` has its own.
        power: Tukey's, of features before anything else; 1 leaves them as they are.
        scale: Factor on the distances before a softmax turns them into a confidence.

    Example:
        >>> head = MahalanobisHead(2)
        >>> head.add_classes([0, 1])
        >>> rows = torch.tensor([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0], [0.2, 1.0]])
        >>> head.add(rows, torch.tensor([0, 0, 1, 1]))
        >>> head(torch.tensor([[3.0, 1.0], [1.0, 3.0]])).argmax(dim=1).tolist()
        [0, 1]
    """

    def __init__(
        self,
        num_features: int,
        *,
        form: Form = "authors",
        shrinkage: tuple[float, float] = (1.0, 0.0),
        power: float = 1.0,
        scale: float = 10.0,
    ) -> None:
        super().__init__()
        self.form, self.shrinkage, self.power, self.scale = form, shrinkage, power, scale
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("means", torch.zeros(0, num_features, dtype=torch.float64))
        # Sums of (f - mu)(f - mu)', kept centred; in 4 bytes, since they are what takes memory.
        self.register_buffer("scatters", torch.zeros(0, num_features, num_features))
        self.labels: Tensor
        self.counts: Tensor
        self.means: Tensor
        self.scatters: Tensor
        self._inverses: dict[int, Tensor] = {}  # by row; of rows that changed there is none
        self._columns: list[tuple[Tensor, Tensor] | None] | None = None  # by label

    def add_classes(self, classes: Sequence[int]) -> None:
        """Makes room for classes that have none yet."""
        known = set(self.labels.tolist())
        new = [label for label in dict.fromkeys(classes) if label not in known]
        self.labels = torch.cat([self.labels, torch.tensor(new).to(self.labels)])
        self.counts = functional.pad(self.counts, (0, len(new)))
        self.means = functional.pad(self.means, (0, 0, 0, len(new)))
        self.scatters = functional.pad(self.scatters, (0, 0, 0, 0, 0, len(new)))
        self._columns = None

    @torch.no_grad()
    def add(self, features: Tensor, targets: Tensor) -> None:
        """Adds samples to their classes.

        Shape:
            features: (B, D). targets: (B,), of classes that have room.
        """
        rows = self._prepared(features, unit=self.form == "authors")
        for row, label in enumerate(self.labels.tolist()):
            own = rows[targets == label]
            if len(own):
                self._take(row, own)
        self._forget()

    def _take(self, row: int, samples: Tensor) -> None:
        before, count = self.counts[row], len(samples)
        mean = samples.mean(dim=0)
        centred = samples - mean
        # Moving a mean adds the part between batches to the scatter.
        shift = mean - self.means[row]
        between = before * count / (before + count) * torch.outer(shift, shift)
        self.scatters[row] += (centred.T @ centred + between).to(self.scatters)
        self.means[row] += shift * count / (before + count)
        self.counts[row] += count
        self._inverses.pop(row, None)

    def _forget(self) -> None:
        # Classes without a spread look at all others.
        self._inverses = {row: each for row, each in self._inverses.items() if self._spreads(row)}
        self._columns = None

    def _spreads(self, row: int) -> bool:
        return bool(self.scatters[row].trace() > _NO_SPREAD * self.counts[row])

    def buffers_loaded(self) -> None:
        """Forgets the inverses of the statistics before."""
        self._inverses, self._columns = {}, None

    def covariance(self, row: int) -> Tensor:
        """Returns the unbiased covariance of the class of a row, (D, D) float64; not shrunk yet."""
        if self._spreads(row):
            return self.scatters[row].double() / (self.counts[row] - 1)
        others = [each for each in range(len(self.counts)) if self._spreads(each)]
        if not others:
            return torch.eye(self.means.shape[1]).to(self.means)
        total = sum(self.covariance(each) for each in others)
        return torch.as_tensor(total / len(others))

    def matrix(self, row: int) -> Tensor:
        """Returns R of the class of a row, (D, D) float64."""
        covariance = self.covariance(row)
        if self.form == "pilot":
            identity = torch.eye(len(covariance)).to(covariance)
            return torch.corrcoef(covariance + _PILOT_SHRINK * identity)
        return correlations(shrunk(covariance, *self.shrinkage))

    def _inverse(self, row: int) -> Tensor:
        if row not in self._inverses or self._inverses[row].device != self.means.device:
            matrix = self.matrix(row)
            factor, failed = torch.linalg.cholesky_ex(matrix)
            # Without shrinkage, and of correlations between rows, what is singular looks definite
            # by rounding alone.
            is_definite = self.form == "authors" and self.shrinkage[0] > 0 and not bool(failed)
            # Scatters have the digits of float32: what is below them is none.
            least = len(matrix) * torch.finfo(torch.float32).eps
            found = (
                torch.cholesky_inverse(factor)
                if is_definite
                else torch.linalg.pinv(matrix, hermitian=True, rtol=least)
            )
            self._inverses[row] = found.float()
        return self._inverses[row]

    def _prepared(self, features: Tensor, *, unit: bool) -> Tensor:
        rows = tukey(features.double(), self.power)
        return functional.normalize(rows, dim=1) if unit else rows

    @torch.no_grad()
    def distances(self, features: Tensor) -> Tensor:
        """Returns the distance to each class; infinite where there is no sample.

        Shape:
            features: (B, D). Output: (B, C), float32, at least 0.
        """
        rows, found = self._prepared(features, unit=True), []
        for column in self._by_label():
            if column is None:
                found.append(torch.full_like(rows[:, 0], inf, dtype=torch.float32))
                continue
            mean, inverse = column
            apart = (rows - mean).float()
            found.append(((apart @ inverse) * apart).sum(dim=1).clamp_min(0))
        return torch.stack(found, dim=1) if found else rows[:, :0].float()

    def _by_label(self) -> list[tuple[Tensor, Tensor] | None]:
        """Returns mean and inverse of each class that has samples, None of the others."""
        known = self._columns
        seen = [] if known is None else [each for each in known if each is not None]
        if known is None or (seen and seen[0][0].device != self.means.device):
            labels = self.labels.tolist()
            means = functional.normalize(self.means, dim=1) if self.form == "pilot" else self.means
            known = [None] * (max(labels, default=-1) + 1)
            for row, label in enumerate(labels):
                if self.counts[row]:
                    known[label] = means[row], self._inverse(row)
            self._columns = known
        return known

    def forward(self, features: Tensor) -> Tensor:
        """Returns the logs of the softmax of -scale d; `UNSEEN_LOGIT` where there is no sample.

        Shape:
            features: (B, D). Output: (B, C), float32.
        """
        logits = -self.scale * self.distances(features)
        # The nearest class stays above those that are unseen, however far it is.
        seen = logits.log_softmax(dim=1)
        return seen.clamp_min(UNSEEN_LOGIT).masked_fill(logits == -inf, UNSEEN_LOGIT)


def tukey(features: Tensor, power: float) -> Tensor:
    """Returns features with each number raised to a power, its sign kept.

    Example:
        >>> tukey(torch.tensor([4.0, -9.0, 0.0]), 0.5).tolist()
        [2.0, -3.0, 0.0]
    """
    return features if power == 1 else features.sign() * features.abs() ** power


def shrunk(covariance: Tensor, diagonal: float, rest: float) -> Tensor:
    """Returns S, a covariance with a1 times its mean variance on the diagonal, a2 of the rest off.

    Shape:
        covariance: (D, D). Output: (D, D).

    Example:
        >>> shrunk(torch.tensor([[0.25, -0.25], [-0.25, 1.0]]), 1, 0).tolist()
        [[0.875, -0.25], [-0.25, 1.625]]
    """
    size = len(covariance)
    identity = torch.eye(size).to(covariance)
    trace = covariance.trace()
    off = (covariance.sum() - trace) / max(size * (size - 1), 1)
    return covariance + diagonal * trace / size * identity + rest * off * (1 - identity)


def correlations(covariance: Tensor) -> Tensor:
    """Returns R, with ones on the diagonal; a channel without variance gives zeros there.

    Shape:
        covariance: (D, D). Output: (D, D).
    """
    spread = covariance.diagonal().clamp_min(0).sqrt()
    inverse = torch.where(spread > 0, 1 / spread, 0.0)
    return covariance * torch.outer(inverse, inverse)
