"""The interface of shift detectors.

A detector answers one question about a window of feature vectors: do they come from the
distribution that it was fitted on? Its state is tensors, so that it is part of a checkpoint.

Shapes: N samples of the reference, n samples of a window, D features, V views.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError, check_positive

__all__ = ["Detector", "Verdict"]


@dataclass(frozen=True)
class Verdict:
    """What a detector says about a window.

    Attributes:
        score: Larger is stranger.
        threshold: The score above which the detector fires.
    """

    score: float
    threshold: float

    @property
    def fired(self) -> bool:
        """Says whether the window is strange."""
        return self.score > self.threshold


class Detector(nn.Module, ABC):
    """Compares windows of features with a reference.

    Args:
        num_features: D.
        false_alarm: Share of windows from the reference's distribution that may fire, in (0, 1);
            it holds for windows of any size.
        seed: Seed of all chance in fitting; torch's global state is not used.
    """

    min_samples: ClassVar[int]

    def __init__(self, num_features: int, *, false_alarm: float = 0.01, seed: int = 0) -> None:
        super().__init__()
        check_positive("num_features", num_features)
        if not 0 < false_alarm < 1:
            raise InputError(f"`false_alarm` must lie in (0, 1), got {false_alarm}")
        self.num_features, self.false_alarm, self.seed = num_features, false_alarm, seed
        self._thresholds: dict[int, float] = {}  # by size of the window; they follow from the state

    def _load_from_state_dict(self, *arguments: Any) -> None:  # noqa: ANN401 - torch's own hook
        self._thresholds.clear()
        super()._load_from_state_dict(*arguments)

    @abstractmethod
    def fit(self, features: Tensor) -> None:
        """Learns the reference, and forgets an earlier one.

        Args:
            features: (N, D), or (V, N, D) for V augmented views of the same N images.

        Raises:
            InputError: If a number is not finite, the width differs or N is below `min_samples`.
        """

    def fit_labelled(self, features: Tensor, labels: Tensor) -> None:
        """Learns the reference as `fit` does; a detector that knows classes learns these as well.

        Args:
            features: As of `fit`.
            labels: (N,), the class of each image.

        Raises:
            InputError: As of `fit`, or if there is not one label an image.
        """
        if labels.shape != (features.shape[-2],):
            raise InputError(
                f"there must be a label for each of {features.shape[-2]} images, "
                f"got shape {tuple(labels.shape)}"
            )
        self.fit(features)

    @abstractmethod
    def check(self, features: Tensor) -> Verdict:
        """Judges a window and changes nothing: the same window gives the same verdict.

        Shape:
            features: (n, D), n at least 1.

        Raises:
            InputError: If a number is not finite, the width differs or nothing was fitted.
        """

    def check_labelled(self, features: Tensor, labels: Tensor) -> Verdict:
        """Judges a window as `check` does; a detector that knows classes may mind these.

        Args:
            features: (n, D).
            labels: (n,), the class of each sample.
        """
        del labels
        return self.check(features)

    def sample_scores(self, features: Tensor) -> Tensor | None:
        """Returns how strange each sample is, where the mean of these is the score of a window.

        None, as here, where a detector has no score for a single sample. With it windows can be
        judged that mix the references of several detectors.

        Shape:
            features: (n, D). Output: (n,).
        """
        del features
        return None

    @abstractmethod
    def reset(self) -> None:
        """Forgets the reference."""

    def checked(self, features: Tensor, least: int = 1) -> Tensor:
        """Returns features (..., D) in float32, or refuses them.

        Raises:
            InputError: As `fit` and `check` say.
        """
        if features.ndim not in {2, 3} or features.shape[-1] != self.num_features:
            raise InputError(
                f"features must have shape (N, {self.num_features}), got {tuple(features.shape)}"
            )
        if features.shape[-2] < least:
            raise InputError(
                f"{type(self).__name__} must see at least {least} samples, got {features.shape[-2]}"
            )
        if not bool(torch.isfinite(features).all()):
            raise InputError("features must be finite, got NaN or infinity")
        return features.detach().float()
