"""Options of heads: trained or closed, with a loss of their own, or following an experience."""

from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from cl_adapters.errors import InputError
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.heads.registry import (
    CLOSED_HEADS,
    PLAIN_HEADS,
    TRAINED_HEADS,
    ClosedHead,
    build_closed_head,
    build_trained_head,
    check_head,
)
from cl_adapters.heads.simplex import SIMPLEX_LOSSES, SimplexLoss
from cl_adapters.strategies.core.config import StrategyOptions, TrainedHeadConfig

__all__ = ["AnyHeadConfig", "OwnLossHeadConfig", "SimplexHeadConfig", "WeightAligningConfig"]


class SimplexHeadConfig(TrainedHeadConfig):
    """The same with a head whose rows are fixed."""

    fitting_heads: ClassVar[tuple[str, ...]] = (*PLAIN_HEADS, "simplex")
    simplex_losses: ClassVar[tuple[str, ...]] = ("all", "seen")

    simplex_loss: SimplexLoss = Field(
        default="all", description="of a simplex head: which corners compete"
    )

    @field_validator("simplex_loss")
    @classmethod
    def _know_loss(cls, value: str) -> str:
        if value not in cls.simplex_losses:
            raise InputError(
                f"`simplex_loss` must be one of {', '.join(cls.simplex_losses)}, since batches "
                f"hold images of earlier experiences too, got {value!r}"
            )
        return value

    def head_options(self) -> dict[str, dict[str, Any]]:
        """Returns the options that single heads have, a simplex head too."""
        return {**super().head_options(), "simplex": {"loss": self.simplex_loss}}


class OwnLossHeadConfig(SimplexHeadConfig):
    """Any trained head, for a method that takes the head's own loss."""

    fitting_heads: ClassVar[tuple[str, ...]] = TRAINED_HEADS
    simplex_losses: ClassVar[tuple[str, ...]] = SIMPLEX_LOSSES

    head_dropout: float = Field(
        default=0.5, ge=0, lt=1, description="share that a multi_dropout head drops"
    )
    head_samples: int = Field(default=8, ge=1, description="masks a step of a multi_dropout head")

    def head_options(self) -> dict[str, dict[str, Any]]:
        """Returns the options that single heads have, one of multi-sample dropout too."""
        masks = {"share": self.head_dropout, "samples": self.head_samples}
        return {**super().head_options(), "multi_dropout": masks}


class WeightAligningConfig(StrategyOptions):
    """Whether rows of new classes get the length of old ones; beside options of a trained head."""

    weight_aligning: bool = Field(
        default=False, description="scale rows of new classes to the length of old ones (WA)"
    )

    @model_validator(mode="after")
    def _check_aligning(self) -> Self:
        head = getattr(self, "head", "linear")
        if self.weight_aligning and head in {"cosine", "simplex"}:
            raise ValueError(
                "`weight_aligning` must go with a head whose rows have lengths that matter, "
                f"got {head!r}"
            )
        return self


class AnyHeadConfig(StrategyOptions):
    """Which classifier answers, of those that are trained and those that are set in closed form.

    For a method that trains features and then keeps them: while it trains, a trained head stands
    in for one in closed form.
    """

    head: str = Field(
        default="discriminant",
        description="classifier: linear, cosine, kac, batch_norm, prototype, discriminant or ridge",
    )
    head_scale: float = Field(default=10.0, gt=0, description="of the cosines of a head that has")
    head_init_std: float | None = Field(
        default=0.001,
        gt=0,
        description="of a trained head's new weights; None: torch's linear layer",
    )
    ridge: float = Field(default=1.0, gt=0, description="strength of the ridge head")

    @field_validator("head")
    @classmethod
    def _know_head(cls, value: str) -> str:
        reason = "where nothing grows, this method trains the head alone"
        return check_head(value, [*PLAIN_HEADS, *CLOSED_HEADS], reason)

    def build_heads(
        self, num_features: int, seen: int | None = None
    ) -> tuple[ExperienceHeads, ClosedHead | None]:
        """Returns the classifier that is trained, and the one that answers in its place if any.

        Args:
            num_features: Of the classifier that is trained.
            seen: Of the one in closed form; None: the same.
        """
        scale, std = self.head_scale, self.head_init_std
        if self.head in PLAIN_HEADS:
            return build_trained_head(self.head, num_features, init_std=std, scale=scale), None
        closed = build_closed_head(self.head, seen or num_features, scale=scale)
        return build_trained_head("linear", num_features, init_std=std), closed
