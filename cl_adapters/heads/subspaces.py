"""Class means in several feature spaces at once, with those that no image could give filled in.

Each experience trains a feature space of its own. A class has real means in the spaces that were
there when its images were; in a later space j its mean is put together from those of classes that
do have one there, by how alike they are in the space i of the class itself:

    w = softmax over k of cos(p[c, i], p[k, i])        k: classes with real means in both i and j
    p[c, j] = sum over k of w[k] p[k, j]

and an image is scored mostly in the class's own space:

    score[c] = cos(f[i], p[c, i]) + alpha / others * sum over j != i of cos(f[j], p[c, j])

Shapes: B batch, F features, S spaces, C columns = highest label seen + 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.heads.linear import UNSEEN_LOGIT

__all__ = ["SubspacePrototypes", "mapped_mean"]


def mapped_mean(own: Tensor, others_in_own: Tensor, others: Tensor) -> Tensor:
    """Returns a class's mean in a space where it has none, from those of other classes.

    Shape:
        own: (..., F), in its own space. others_in_own: (K, F), of the others there. others: (K, F),
        of the same in the other space. Output: (..., F).

    Example:
        >>> from torch import tensor
        >>> there = tensor([[2.0, 0.0], [0.0, 4.0]])
        >>> mapped_mean(tensor([1.0, 0.0]), tensor([[1.0, 0.0], [0.0, 1.0]]), there)
        tensor([1.4621, 1.0758])
    """
    cosines = functional.normalize(own, dim=-1) @ functional.normalize(others_in_own, dim=-1).T
    return cosines.softmax(dim=-1) @ others


class SubspacePrototypes(GrowingBuffers):
    """Cosines to class means in every space, reweighted towards the one of the class.

    The space of a class is the last in which it has a real mean. Means are kept as sums and counts
    in float64, so the result does not depend on how images were split into batches.

    Args:
        num_features: F, of each space.
        alpha: Weight of the other spaces together.
        plain: Weight of the first space where that is the untrained network's; None where it is a
            space like the others.
        reweight: False takes one cosine over the features of all spaces, joined.
        scale: Factor on the score before a softmax turns it into a confidence.
        mapped: False leaves mapped means out: the score is the mean cosine over the spaces in which
            a class has a real one.

    Example:
        >>> head = SubspacePrototypes(2, alpha=0.1, scale=1.0)
        >>> head.add_classes([0, 1])
        >>> east, north = torch.eye(2)[:, None]
        >>> head.add(0, east, torch.tensor([0]))
        >>> head.add(0, north, torch.tensor([1]))
        >>> head.add(1, east, torch.tensor([1]))
        >>> head(torch.tensor([[[1.0, 0.0], [0.6, 0.8]]]))  # the mean of class 0 is mapped to east
        tensor([[1.0600, 0.6000]])
    """

    def __init__(
        self,
        num_features: int,
        alpha: float = 0.1,
        plain: float | None = None,
        scale: float = 10.0,
        reweight: bool = True,  # noqa: FBT001, FBT002 - named where it is long
        *,
        mapped: bool = True,
    ) -> None:
        super().__init__()
        self.alpha, self.plain, self.reweight, self.scale = alpha, plain, reweight, scale
        self.mapped = mapped
        self.register_buffer("sums", torch.zeros(0, 0, num_features, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(0, 0, dtype=torch.float64))
        self.sums: Tensor
        self.counts: Tensor
        self._directions: Tensor | None = None  # of all means: follow from the sums

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def num_spaces(self) -> int:
        """S, how many spaces there are."""
        return self.counts.shape[1]

    def buffers_loaded(self) -> None:
        """Forgets the means of the state before."""
        self._directions = None

    def add_classes(self, classes: Sequence[int]) -> None:
        """Makes room for classes that have no column yet."""
        self._grow(max(classes, default=-1) + 1, self.num_spaces)

    def add_spaces(self, spaces: int) -> None:
        """Makes room for so many spaces."""
        self._grow(len(self), spaces)

    def _grow(self, classes: int, spaces: int) -> None:
        classes, spaces = max(0, classes - len(self)), max(0, spaces - self.num_spaces)
        if classes or spaces:
            self.sums = functional.pad(self.sums, (0, 0, 0, spaces, 0, classes))
            self.counts = functional.pad(self.counts, (0, spaces, 0, classes))
            self._directions = None

    @torch.no_grad()
    def add(self, space: int, features: Tensor, targets: Tensor) -> None:
        """Adds samples to their classes' means in one space.

        Shape:
            features: (B, F). targets: (B,), labels below C.
        """
        self.add_spaces(space + 1)
        self.sums[:, space].index_add_(0, targets, features.double())
        ones = torch.ones_like(targets, dtype=torch.float64)
        self.counts[:, space].index_add_(0, targets, ones)
        self._directions = None

    def own_spaces(self) -> Tensor:
        """Returns the space of each class, (C,), -1 where a class has no mean yet."""
        numbers = torch.arange(1, self.num_spaces + 1, device=self.counts.device)
        return ((self.counts > 0) * numbers).amax(dim=1) - 1

    @torch.no_grad()
    def means(self) -> Tensor:
        """Returns the means in all spaces, real or mapped; 0 for a class without any.

        Shape:
            Output: (C, S, F), float64.
        """
        is_real = self.counts > 0
        real = self.sums / self.counts.clamp_min(1)[:, :, None]
        means, own = real.clone(), self.own_spaces()
        for home in range(self.num_spaces):
            old = own == home
            for space in range(home + 1, self.num_spaces):
                known = is_real[:, home] & is_real[:, space]
                if bool(old.any()) and bool(known.any()):
                    means[old, space] = mapped_mean(
                        real[old, home], real[known, home], real[known, space]
                    )
        return means

    def weights(self) -> Tensor:
        """Returns what the cosine of each class in each space counts, (C, S), float32."""
        if not self.mapped:
            is_real = (self.counts > 0).float()
            return is_real / is_real.sum(dim=1, keepdim=True).clamp_min(1)
        own = self.own_spaces()
        others = self.num_spaces - 1 - (self.plain is not None)
        weights = torch.full(self.counts.shape, self.alpha / max(1, others), device=own.device)
        if self.plain is not None and self.num_spaces:
            weights[:, 0] = self.plain
        seen = (own >= 0).nonzero()[:, 0]
        weights[seen, own[seen]] = 1
        return weights

    def forward(self, features: Tensor) -> Tensor:
        """Returns what `scores` does."""
        return self.scores(features)

    def scores(self, features: Tensor) -> Tensor:
        """Returns the scaled scores; `UNSEEN_LOGIT` where a class has no mean.

        Shape:
            features: (B, S, F). Output: (B, C), float32.
        """
        if self._directions is None or self._directions.device != features.device:
            self._directions = self._directions_of(self.means()).float()
        rows = self._directions_of(features.float())
        if self.reweight:
            cosines = torch.einsum("bsf,csf->bcs", rows, self._directions)
            scores = (cosines * self.weights()).sum(dim=2)
        else:
            scores = rows.flatten(1) @ self._directions.flatten(1).T
        return (self.scale * scores).masked_fill(self.own_spaces() < 0, UNSEEN_LOGIT)

    def _directions_of(self, values: Tensor) -> Tensor:
        if self.reweight:
            return functional.normalize(values, dim=2)
        return functional.normalize(values.flatten(1), dim=1).reshape(values.shape)
