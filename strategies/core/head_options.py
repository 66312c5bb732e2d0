"""Options of trained heads that have a loss of their own, or follow an experience."""

from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from cl_adapters.errors import InputError
from cl_adapters.heads.registry import PLAIN_HEADS, TRAINED_HEADS
from cl_adapters.heads.simplex import SIMPLEX_LOSSES, SimplexLoss
from cl_adapters.strategies.core.config import StrategyOptions, TrainedHeadConfig

__all__ = ["OwnLossHeadConfig", "SimplexHeadConfig", "WeightAligningConfig"]


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
