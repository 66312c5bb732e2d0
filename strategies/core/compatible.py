"""A simplex head's loss beside one that keeps features comparable with earlier ones (HOC).

`cl_adapters/heads/compatibility.py` says what it is. Theirs has kept images and compares with the
network of the experience before.
"""

from typing import Self

from pydantic import Field, model_validator
from torch import Tensor

from cl_adapters.heads.compatibility import compatibility_loss
from cl_adapters.strategies.core.head_options import OwnLossHeadConfig
from cl_adapters.strategies.core.output import Output

__all__ = ["CompatibleHeadConfig"]


class CompatibleHeadConfig(OwnLossHeadConfig):
    """Any trained head, of which a simplex may be held to what an earlier network saw."""

    compatibility: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="of a simplex head: share of the loss that keeps features where the offline "
        "modules see them (HOC; theirs: 0.9)",
    )

    @model_validator(mode="after")
    def _check_compatibility(self) -> Self:
        if self.compatibility and self.head != "simplex":
            raise ValueError(
                f"`compatibility` must stay at 0 with head {self.head!r}, since old and new "
                f"features are comparable at fixed corners, of head simplex, got "
                f"{self.compatibility:g}"
            )
        return self

    def with_compatibility(self, loss: Tensor, output: Output | None, targets: Tensor) -> Tensor:
        """Returns a loss with its share of the one that compares features, where both are known.

        Args:
            loss: The head's.
            output: Of the pass, with `features` and `earlier`, (B, F), where these are compared.
            targets: (B,).
        """
        if output is None or "earlier" not in output.extras:
            return loss
        new, old = (output.extras[name].float() for name in ("features", "earlier"))
        apart = compatibility_loss(new, old, targets)
        return (1 - self.compatibility) * loss + self.compatibility * apart
