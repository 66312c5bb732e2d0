"""Linear heads with multi-sample dropout: one pass of the network, several losses.

Reference: Hiroshi Inoue, "Multi-Sample Dropout for Accelerated Training and Better Generalization",
2019, arXiv:1905.09788; after its abstract, since there is no code of the author. In training

    loss = 1 / M sum_m CE(W (f * mask_m) + b)

with M masks of the same features: losses are averaged, not logits. Answers drop nothing, and so do
the logits that training shows.

Shapes: B batch, F features, C columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cl_adapters.errors import InputError, check_positive
from cl_adapters.heads.linear import ExperienceHeads, cross_entropy_over

__all__ = ["DropoutHeads"]


class DropoutHeads(ExperienceHeads):
    """One linear layer an experience, trained under several dropouts of the features at once.

    Attributes:
        noise: What masks are drawn from; None takes torch's global source.

    Args:
        num_features: F.
        init_std: As in `ExperienceHeads`.
        share: Of the features that a mask drops, in [0, 1).
        samples: M, at least 1.

    Raises:
        InputError: If the share or the number of samples is outside of its range.
    """

    def __init__(
        self,
        num_features: int,
        *,
        init_std: float | None = 0.001,
        share: float = 0.5,
        samples: int = 8,
    ) -> None:
        super().__init__(num_features, init_std=init_std)
        check_positive("samples", samples)
        if not 0 <= share < 1:
            raise InputError(f"`share` must lie in [0, 1), got {share}")
        self.share, self.samples = share, samples
        self.noise: torch.Generator | None = None
        # Logits of the last pass in training, and those under masks; gone with their loss.
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Returns the logits without dropout.

        Shape:
            features: (B, F). Output: (B, C), float32.
        """
        logits = super().forward(features)
        self._last = None
        if self.training and torch.is_grad_enabled() and logits.requires_grad:
            many = features.repeat(self.samples, 1)
            kept = torch.empty_like(many).bernoulli_(1 - self.share, generator=self.noise)
            self._last = logits, super().forward(many * kept / (1 - self.share))
        return logits

    def loss(self, classes: Sequence[int], logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean of the losses under all masks, of logits that `forward` just gave.

        Raises:
            InputError: If the logits are not those of the last pass in training.
        """
        last, self._last = self._last, None
        if last is None or last[0] is not logits:
            raise InputError(
                "the loss of a `multi_dropout` head must be that of its last pass in training, "
                "got other logits"
            )
        return cross_entropy_over(classes, last[1], targets.repeat(self.samples))
