"""When an image is of no known class: a score, and what it was on known images that it never saw.

An image is rejected where its score lies above a threshold. With M scores of held-out images in
rising order and a rate r, the threshold is the k-th of them,

    k = M + 1 - floor(r (M + 1))

so that of new images of the same distribution no more than a share r lies above it, whatever the
distribution, on average over held-out sets (split conformal prediction). M must be at least
1 / r - 1.

Reference: Vladimir Vovk, Alexander Gammerman, Glenn Shafer, "Algorithmic Learning in a Random
World", Springer 2005.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.heads.unknown import Score, make_score

__all__ = ["DEFAULT_SCORE", "UNKNOWN", "Rejection", "check_rate"]

DEFAULT_SCORE: Final = "mahalanobis"  # how it was chosen: docs/unknown.md
UNKNOWN: Final = "unknown"  # what an image of no known class is called


def check_rate(rate: float | None) -> None:
    """Raises `InputError` unless a rate of false rejections lies in (0, 1), or is none."""
    if rate is not None and not 0 < rate < 1:
        raise InputError(f"the share of known images to reject must lie in (0, 1), got {rate:g}")


@dataclass(frozen=True, eq=False)
class Rejection:
    """A score with its statistics, and its values on held-out images of known classes.

    Attributes:
        name: Of the score, one of `cl_adapters.heads.unknown.SCORES`.
        score: It, with its statistics.
        held_out: Values on held-out images in rising order, (M,) float64.
    """

    name: str
    score: Score
    held_out: Tensor

    def threshold(self, rate: float) -> float:
        """Returns the score above which an image is rejected.

        Never below the least held-out score, which a rate close to 1 asks for.

        Args:
            rate: Share of images of known classes that may be rejected, in (0, 1).

        Raises:
            InputError: If the rate is out of range, or too small for so few held-out images.
        """
        check_rate(rate)
        # A whole number may come out a rounding error below itself.
        above = math.floor(rate * (len(self.held_out) + 1) + 1e-9)
        above = min(above, len(self.held_out))
        if above < 1:
            least = math.ceil(1 / max(rate, 1e-15) - 1e-9) - 1  # of 1e-310 the inverse is infinite
            raise InputError(
                f"rejecting a share of {rate:g} must be calibrated on at least {least:,} held-out "
                f"training images, got {len(self.held_out):,}"
            )
        return float(self.held_out[len(self.held_out) - above])

    def scores(self, logits: Tensor, features: Tensor | None) -> Tensor:
        """Returns how strange images are, (B,) float64, on the CPU.

        Shape:
            logits: (B, C). features: (B, D), of the frozen backbone; None where the score reads
            logits.
        """
        rows = logits if features is None or self.score.reads == "logits" else features
        found: Tensor = self.score(rows)
        return found.cpu()

    def describe(self) -> dict[str, Any]:
        """Returns what a sheet says of it."""
        return {
            "score": self.name,
            "num_features": self.score.num_features,
            "held_out": len(self.held_out),
        }

    def state(self) -> dict[str, Tensor]:
        """Returns its tensors by name."""
        held = {f"score.{name}": value for name, value in self.score.state_dict().items()}
        return {"held_out": self.held_out, **held}

    @classmethod
    def of(cls, values: Mapping[str, Any], state: Mapping[str, Tensor], place: str) -> Self:
        """Returns the one that `describe` and `state` tell of.

        Args:
            values: What `describe` gave.
            state: What `state` gave.
            place: How to call the file in a message.

        Raises:
            InputError: If they do not fit each other.
        """
        size, held_out = values.get("num_features"), state.get("held_out")
        if not isinstance(size, int) or size < 1 or held_out is None or held_out.ndim != 1:
            raise InputError(f"{place} must hold the statistics of a score, got {sorted(state)}")
        score = make_score(str(values.get("score")), size)
        tensors = {
            name.removeprefix("score."): value
            for name, value in state.items()
            if name.startswith("score.")
        }
        try:
            score.load_state_dict(tensors)
        except RuntimeError as error:
            raise InputError(
                f"{place} must fit the score {values['score']!r}, got other tensors"
            ) from error
        if not all(bool(torch.isfinite(each).all()) for each in state.values()):
            raise InputError(f"{place} must hold finite numbers, got NaN or infinity")
        return cls(str(values["score"]), score.requires_grad_(requires_grad=False), held_out)
