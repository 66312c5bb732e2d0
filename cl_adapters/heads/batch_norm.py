"""Linear heads over batch-normalised features.

Reference: Shoufa Chen, Chongjian Ge, Zhan Tong, Jiangliu Wang, Yibing Song, Jue Wang, Ping Luo,
"AdaptFormer: Adapting Vision Transformers for Scalable Visual Recognition", NeurIPS 2022. After the
authors' code: batch normalisation without gain and shift, epsilon 1e-6, and a linear layer.

Answers use running statistics, so none hangs on the other images of its batch. Theirs learn one
task; over several, statistics that run on would change what the rows of earlier classes read. So
those of the first experience stay, unless `statistics="running"`.

Shapes: B batch, F features, C columns.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.heads.linear import ExperienceHeads

__all__ = ["BatchNormHeads", "NormalizedLinear", "Statistics"]

Statistics = Literal["first", "running"]
_EPSILON = 1e-6
_MOMENTUM = 0.1  # torch's own, as theirs


class NormalizedLinear(nn.Linear):
    """Rows of weights over features that are normalised by fixed statistics.

    Args:
        mean: (F,), copied.
        variance: (F,), copied.
        rows: C.
    """

    def __init__(self, mean: Tensor, variance: Tensor, rows: int) -> None:
        super().__init__(len(mean), rows, device="meta")
        self.to_empty(device=mean.device)
        self.register_buffer("mean", mean.clone())
        self.register_buffer("variance", variance.clone())
        self.mean: Tensor
        self.variance: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """Returns the logits.

        Shape:
            features: (B, F). Output: (B, C).
        """
        normed = functional.batch_norm(features.float(), self.mean, self.variance, eps=_EPSILON)
        return super().forward(normed)


class BatchNormHeads(ExperienceHeads):
    """One linear layer an experience over features that share one batch normalisation.

    Args:
        num_features: F.
        init_std: As in `ExperienceHeads`.
        statistics: `first` leaves mean and variance as they are once a second layer is there;
            `running` lets every experience go on with them.
    """

    def __init__(
        self,
        num_features: int,
        *,
        init_std: float | None = 0.001,
        statistics: Statistics = "first",
    ) -> None:
        super().__init__(num_features, init_std=init_std)
        self.statistics = statistics
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("variance", torch.ones(num_features))
        self.mean: Tensor
        self.variance: Tensor

    def _seen(self, features: Tensor) -> Tensor:
        is_fixed = self.statistics == "first" and len(self.layers) > 1
        # The variance of a single image is no variance; it reads what is known so far.
        learns = self.training and torch.is_grad_enabled() and not is_fixed and len(features) > 1
        normed = functional.batch_norm(
            features.float(), self.mean, self.variance, None, None, learns, _MOMENTUM, _EPSILON
        )
        return super()._seen(normed)

    @torch.no_grad()
    def joined(self, labels: Sequence[int]) -> nn.Linear:
        """Returns a copy of the rows of some labels as one layer, with the statistics of now."""
        rows = super().joined(labels)
        copy = NormalizedLinear(self.mean, self.variance, len(labels))
        copy.load_state_dict(rows.state_dict(), strict=False)
        return copy
