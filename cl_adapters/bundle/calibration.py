"""What training images tell of images to come: when one is of no known class, and what is a shift.

It is fitted on the images of a run (`cl_adapters.benchmarks.calibration`) and travels in a bundle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from cl_adapters.bundle.rejection import Rejection
from cl_adapters.bundle.watching import FolderWatch
from cl_adapters.errors import InputError
from cl_adapters.strategies.core.output import Output
from cl_adapters.strategies.core.strategy import AdapterStrategy

__all__ = ["Calibration", "FrozenView", "frozen_view", "own_mean_tokens"]


@dataclass(frozen=True, eq=False)
class Calibration:
    """A rule of rejection, and detectors of shifts.

    Attributes:
        rejection: The rule.
        watch: Detectors on the frozen backbone; None where a method has its own.
    """

    rejection: Rejection
    watch: FolderWatch | None

    def describe(self) -> dict[str, Any]:
        """Returns what a sheet says of it, under the name `calibration`."""
        watch = {} if self.watch is None else {"watch": self.watch.settings}
        return {"rejection": self.rejection.describe(), **watch}

    def state(self) -> dict[str, Tensor]:
        """Returns its tensors by name."""
        watch = {} if self.watch is None else self.watch.state()
        parts = {"rejection": self.rejection.state(), "watch": watch}
        return {
            f"{part}.{name}": value.detach().cpu().contiguous()
            for part, state in parts.items()
            for name, value in state.items()
        }

    def to(self, device: torch.device) -> Self:
        """Moves it to where a model computes; returns it."""
        self.rejection.score.to(device)
        if self.watch is not None:
            self.watch.bank.to(device)
        return self

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
        if not isinstance(values, Mapping) or not isinstance(values.get("rejection"), Mapping):
            raise InputError(f"{place} must come with a rule of rejection, got {values!r}")
        rejection = Rejection.of(values["rejection"], _part(state, "rejection."), place)
        watch = values.get("watch")
        found = None if watch is None else FolderWatch.of(watch, _part(state, "watch."), place)
        return cls(rejection, found)


def _part(state: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    found = {name: value for name, value in state.items() if name.startswith(start)}
    return {name.removeprefix(start): value for name, value in found.items()}


class FrozenView(NamedTuple):
    """What the frozen backbone alone makes of images.

    Attributes:
        features: (B, D).
        mean_tokens: By block, the mean of the tokens that enter it, (B, D) each.
    """

    features: Tensor
    mean_tokens: dict[int, Tensor]


@torch.no_grad()
def frozen_view(strategy: AdapterStrategy, images: Tensor, blocks: tuple[int, ...]) -> FrozenView:
    """Returns what a strategy's backbone makes of images without anything that was learned.

    Args:
        strategy: Whose backbone, device and precision.
        images: (B, 3, S, S), bytes or numbers.
        blocks: Whose mean tokens are wanted, rising.
    """
    backbone, means, start = strategy.backbone, {}, 0
    with strategy.features.autocast():
        tokens = backbone.tokens(backbone.inputs(images, strategy.device))
        for block in blocks:
            tokens = backbone.run(tokens, start, block)
            means[block], start = tokens.mean(dim=1).float(), block
        features = backbone.features(backbone.run(tokens, start))
    return FrozenView(features.float(), means)


def own_mean_tokens(output: Output) -> dict[int, Tensor]:
    """Returns what the routers of a strategy read, by block: (B, D) each; empty without routers."""
    records = output.extras.get("router", {})
    return {block: record.mean_tokens.float() for block, record in records.items()}
