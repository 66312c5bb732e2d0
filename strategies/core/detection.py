"""Options of the detectors that tell a growing method where data is strange, and of its growth."""

from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from cl_adapters.peft.growth import Budget, Policy
from cl_adapters.shift import Detector, find_detector
from cl_adapters.strategies.core.config import StrategyOptions

__all__ = ["DetectorConfig", "GrowthConfig"]

_OF_DESCRIPTOR: Final[dict[str, Any]] = {"beside": {"detector": "descriptor"}}


class DetectorConfig(StrategyOptions):
    """Which detector judges windows of data, and how."""

    detector: str = Field(default="descriptor", description="name of a shift detector")
    threshold: float | Literal["auto"] = Field(
        default="auto", description="of the descriptor's mean z; auto: calibrated"
    )
    min_shift: float = Field(
        default=1.5,
        ge=0,
        description="mean z below which a calibrated threshold of the descriptor never lies",
        json_schema_extra=_OF_DESCRIPTOR,
    )
    min_discrepancy: float = Field(
        default=0,
        ge=0,
        lt=2,
        description="MMD^2 below which those of mmd, class_mmd never lie",
    )
    false_alarm: float = Field(
        default=0.01, gt=0, lt=1, description="share of windows of known data that may fire"
    )
    signed: bool = Field(
        default=True,
        description="keep the sign of the descriptor's z",
        json_schema_extra=_OF_DESCRIPTOR,
    )
    standardize: bool = Field(
        default=True,
        description="what the descriptor sees",
        json_schema_extra=_OF_DESCRIPTOR,
    )
    descriptor_dim: int | None = Field(
        default=None,
        ge=1,
        description="None: a sixth of the width",
        json_schema_extra=_OF_DESCRIPTOR,
    )
    descriptor_epochs: int = Field(
        default=20,
        ge=1,
        description="of the descriptors' training",
        json_schema_extra=_OF_DESCRIPTOR,
    )
    views: int = Field(
        default=1, ge=0, description="augmented views for the detectors; 0: new each epoch"
    )
    detect_batch_size: int = Field(default=128, ge=1, description="images in a scanned window")
    merge_last: bool = Field(default=True, description="a smaller last window joins another")

    @model_validator(mode="after")
    def _check_threshold(self) -> Self:
        if self.threshold != "auto" and self.threshold <= 0:
            raise ValueError(f"`threshold` must be 'auto' or above 0, got {self.threshold}")
        return self

    def make_detector(self, num_features: int, seed: int) -> Detector:
        """Returns a new detector of the chosen kind."""
        own: dict[str, Any] = {}
        if self.detector == "descriptor":
            own = {
                "dim": self.descriptor_dim,
                "epochs": self.descriptor_epochs,
                "signed": self.signed,
                "threshold": self.threshold,
                "min_shift": self.min_shift,
                "standardize": self.standardize,
                "batch_size": int(getattr(self, "batch_size", 32)),
            }
        elif self.detector in {"mmd", "class_mmd"}:
            own = {"min_discrepancy": self.min_discrepancy}
        kind = find_detector(self.detector)
        return kind(num_features, false_alarm=self.false_alarm, seed=seed, **own)


class GrowthConfig(DetectorConfig):
    """When a method grows, and what growth may cost."""

    policy: Policy = Field(default="per_block", description="where and when to grow")
    budget: Budget = Field(default=Budget(), description="what growth may cost")

    @property
    def asks_detectors(self) -> bool:
        """Whether the policy asks them at all."""
        return self.policy in {"per_block", "whole_network"}
