"""Where an adapter begins that a block grows: drawn anew, or at those that the block has.

The options are those of `core/starting.py`. `last` is the block's newest adapter, `nearest` the one
whose detector finds the experience least strange. For `knn` each adapter answers alone in its
block, while the other blocks answer as they do.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from cl_adapters.shift.bank import DetectorBank
from cl_adapters.strategies.core.features import Features
from cl_adapters.strategies.core.regimes import Regimes
from cl_adapters.strategies.core.starting import (
    GrowthStartConfig,
    Start,
    mean_state,
    separation,
    stored_choice,
)
from cl_adapters.strategies.core.tokens import ExperienceTokens
from cl_adapters.vit.expandable import ExpandableViT

__all__ = ["SlotStartConfig", "SlotStarts"]


class SlotStartConfig(GrowthStartConfig):
    """Which detector lets a block grow, and where its new adapter begins."""

    knows_nearest: ClassVar[bool] = True
    idle_starts: ClassVar[tuple[str, ...]] = ("fresh",)  # of the authors' settings

    detector: str = Field(default="class_mmd", description="name of a shift detector")
    start: Start = Field(
        default="nearest",
        description="of a grown adapter: fresh, its block's last, the mean of its block's, the "
        "nearest one to the detectors, or knn, whose features tell the new classes apart",
    )


@dataclass(frozen=True)
class SlotStarts:
    """Finds where adapters begin in one experience.

    Attributes:
        start: The option.
        model: The network, before a block grows.
        detectors: Those of its adapters.
        tokens: The experience.
        features: What computes in the strategy's precision.
        timed: Notes, as `EventLog.timed` does, how long asking takes.
        regimes: Those whose paths the adapters are, where the network is watched as a whole: it is
            whole paths then that are near, or that are asked.
    """

    start: Start
    model: ExpandableViT
    detectors: DetectorBank
    tokens: ExperienceTokens
    features: Features
    timed: Callable[[str, int], AbstractContextManager[None]]
    regimes: Regimes | None = None

    @torch.no_grad()
    def of(self, block: int) -> dict[str, Tensor] | None:
        """Returns the state that an adapter of a block begins with; None where it is drawn anew."""
        if self.start == "fresh":
            return None
        held = [each.state_dict() for each in self.model.slot(block).adapters]
        if self.start == "mean":
            return mean_state(held)
        if self.start == "last":
            return held[-1]
        chosen = stored_choice(
            self.start,
            range(len(held)),
            lambda number: self._separates(block, number),
            lambda: self._nearest(block),
        )
        return None if chosen is None else held[chosen]

    def _nearest(self, block: int) -> int:
        if self.regimes is not None:
            return self.regimes.nearest
        with self.timed("start", len(self.tokens)):
            seen = self.tokens.mean_tokens([block], "start")[block]
            return self.detectors.judge(block, seen).best

    def _separates(self, block: int, number: int) -> tuple[float, int]:
        model = self.model
        path = None if self.regimes is None else number
        others = [(block, each) for each in range(len(model.slot(block))) if each != number]
        others = others if path is None else []

        def compute(tokens: Tensor) -> Tensor:
            with self.features.autocast():
                return model.features(tokens, chosen=path).float()

        was_training = model.training
        model.eval()
        with (
            self.timed("start", len(self.tokens)),
            model.leaving_out(others),
        ):
            found = separation(self.tokens.batches("start"), compute)
        model.train(was_training)
        return found
