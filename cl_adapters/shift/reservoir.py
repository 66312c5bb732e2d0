"""What detectors share that compare a window with kept samples of the reference."""

from typing import ClassVar

import torch
from torch import Tensor

from cl_adapters.errors import InputError, check_positive
from cl_adapters.shift.base import Detector

__all__ = ["ReservoirDetector"]


class ReservoirDetector(Detector):
    """Keeps at most `max_reference` samples, drawn at random from all of the reference.

    Args:
        num_features: D.
        false_alarm: Share of known windows that may fire.
        seed: Seed of the draw.
        max_reference: Most samples that are kept.
    """

    min_samples: ClassVar[int] = 10

    def __init__(
        self,
        num_features: int,
        *,
        false_alarm: float = 0.01,
        seed: int = 0,
        max_reference: int = 500,
    ) -> None:
        super().__init__(num_features, false_alarm=false_alarm, seed=seed)
        check_positive("max_reference", max_reference)
        self.register_buffer("kept", torch.zeros(max_reference, num_features))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.kept: Tensor
        self.count: Tensor

    def reset(self) -> None:
        """Forgets the reference."""
        self.count.zero_()
        self.kept.zero_()

    def fit(self, features: Tensor) -> None:
        """Keeps samples of the reference; of several views of an image, the first."""
        features = self.checked(features, self.min_samples)
        rows = features[0] if features.ndim == 3 else features
        self.reset()
        chosen = self.drawn(len(rows))
        self.kept[: len(chosen)] = rows[chosen]
        self.count.fill_(len(chosen))

    def drawn(self, count: int) -> Tensor:
        """Returns which of some samples are kept, (R,), by the seed."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(count, generator=generator)[: len(self.kept)]

    @property
    def reference(self) -> Tensor:
        """The samples that are kept, (R, D).

        Raises:
            InputError: If nothing was fitted.
        """
        if not int(self.count):
            raise InputError("a detector must be fitted before it is asked")
        return self.kept[: int(self.count)]
