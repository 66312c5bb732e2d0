"""Class means in several subspaces, and those that a class has no images for (EASE).

Each experience leaves a subspace, the features under its own adapters, and its classes have means
in it and in all before. A class of an earlier experience has no image left for a later subspace:
there its mean is put together from those of classes that have both. With i the last subspace in
which class c has images, j one in which it has none, and k all classes with images in both,

    w_k = softmax over k of cos(p_ci, p_ki)          p_cj = sum over k of w_k p_kj

A class is scored in its own subspace, and a little in the others:

    score_c = cos(f_i, p_ci) + alpha / (S - 1) sum over j != i of cos(f_j, p_cj)

Reference: Da-Wei Zhou, Hai-Long Sun, Han-Jia Ye, De-Chuan Zhan, "Expandable Subspace Ensemble for
Pre-Trained Model-Based Class-Incremental Learning", CVPR 2024, arXiv:2403.12030.

Shapes: B batch, S subspaces, D features, C columns = highest label seen + 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.heads.linear import UNSEEN_LOGIT

__all__ = ["SubspacePrototypes"]


class SubspacePrototypes(GrowingBuffers):
    """Cosines to class means in each subspace; grows by class and by subspace.

    Args:
        num_features: D.
        alpha: Share of all subspaces but a class's own.
        scale: Factor on the scores before a softmax turns them into a confidence.
    """

    def __init__(self, num_features: int, *, alpha: float = 0.1, scale: float = 10.0) -> None:
        super().__init__()
        self.alpha, self.scale = alpha, scale
        self.register_buffer("sums", torch.zeros(0, 0, num_features, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(0, 0, dtype=torch.float64))
        self.sums: Tensor
        self.counts: Tensor
        self._means: Tensor | None = None

    def add_classes(self, classes: Sequence[int]) -> None:
        """Makes room for one more subspace, and for classes that have no column yet."""
        missing = max(0, max(classes, default=-1) + 1 - self.counts.shape[1])
        self.sums = functional.pad(self.sums, (0, 0, 0, missing, 0, 1))
        self.counts = functional.pad(self.counts, (0, missing, 0, 1))
        self._means = None

    @torch.no_grad()
    def add(self, subspace: int, features: Tensor, targets: Tensor) -> None:
        """Adds samples to their classes' means in a subspace.

        Shape:
            features: (B, D). targets: (B,), labels below C.
        """
        self.sums[subspace].index_add_(0, targets, features.double())
        ones = torch.ones_like(targets, dtype=torch.float64)
        self.counts[subspace].index_add_(0, targets, ones)
        self._means = None

    def buffers_loaded(self) -> None:
        """Forgets the means of the sums before."""
        self._means = None

    @property
    def own(self) -> Tensor:
        """The last subspace in which each class has samples, (C,); -1 where there is none."""
        order = torch.arange(1, len(self.counts) + 1, device=self.counts.device)
        has: Tensor = (self.counts > 0) * order[:, None]
        return has.amax(dim=0) - 1 if len(self.counts) else has.sum(dim=0) - 1

    @torch.no_grad()
    def means(self) -> Tensor:
        """Returns the means of all classes in all subspaces, (S, C, D) float64.

        Of classes without a sample, and in subspaces without one, they are zeros.
        """
        if self._means is None or self._means.device != self.sums.device:
            found = self.sums / self.counts.clamp_min(1)[..., None]
            own = self.own
            for column in range(self.counts.shape[1]):
                for subspace in range(len(self.counts)):
                    if own[column] >= 0 and self.counts[subspace, column] == 0:
                        found[subspace, column] = self._mapped(found, column, subspace)
            self._means = found
        return self._means

    def _mapped(self, means: Tensor, column: int, subspace: int) -> Tensor:
        own = int(self.own[column])
        both = (self.counts[own] > 0) & (self.counts[subspace] > 0)
        if not bool(both.any()):
            return torch.zeros_like(means[subspace, column])
        near = functional.cosine_similarity(means[own, column], means[own, both], dim=1)
        return near.softmax(dim=0) @ means[subspace, both]

    @torch.no_grad()
    def forward(self, features: Tensor) -> Tensor:
        """Returns the scaled scores; `UNSEEN_LOGIT` where there is no sample.

        Shape:
            features: (S', B, D), of the first S' subspaces, in which all samples so far lie.
            Output: (B, C), float32.
        """
        known = len(features)
        units = functional.normalize(self.means()[:known], dim=2).float()
        cosines = functional.normalize(features.float(), dim=2) @ units.transpose(1, 2)
        own, order = self.own, torch.arange(known, device=features.device)
        shares = torch.where(order[:, None] == own, 1.0, self.alpha / max(known - 1, 1))
        scores = (cosines * shares[:, None]).sum(dim=0)
        return (self.scale * scores).masked_fill(own < 0, UNSEEN_LOGIT)
