"""Detectors by block: one for each adapter that a block has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from cl_adapters.shift.base import Detector, Verdict

__all__ = ["DetectorBank", "Verdicts"]


@dataclass(frozen=True)
class Verdicts:
    """What all detectors of a block say of some data.

    Attributes:
        images: How many images were judged.
        each: The verdict of each detector.
    """

    images: int
    each: tuple[Verdict, ...]

    @property
    def best(self) -> int:
        """The detector to which the data is least strange, by its distance to the threshold."""
        return min(range(len(self.each)), key=lambda k: self.each[k].score - self.each[k].threshold)

    @property
    def fired(self) -> bool:
        """Whether the data is strange to all."""
        return all(verdict.fired for verdict in self.each)

    @property
    def scores(self) -> list[float]:
        """The score of each."""
        return [verdict.score for verdict in self.each]

    @property
    def thresholds(self) -> list[float]:
        """The threshold of each."""
        return [verdict.threshold for verdict in self.each]

    def describe(self) -> dict[str, object]:
        """Returns what a `scan` event says of it."""
        return {
            "images": self.images,
            "scores": self.scores,
            "thresholds": self.thresholds,
            "adapter": self.best,
            "score": self.score,
            "threshold": self.threshold,
            "fired": self.fired,
        }

    @property
    def score(self) -> float:
        """The score of the best."""
        return self.each[self.best].score

    @property
    def threshold(self) -> float:
        """The threshold of the best."""
        return self.each[self.best].threshold


class DetectorBank(nn.ModuleDict):
    """The detectors of some blocks; never trained by gradient.

    Args:
        first: The first detector of each block.
    """

    def __init__(self, first: Mapping[int, Detector]) -> None:
        super().__init__(
            {str(block): nn.ModuleList([detector]) for block, detector in first.items()}
        )
        self.requires_grad_(requires_grad=False)

    def of(self, block: int) -> list[Detector]:
        """Returns the detectors of a block, the oldest first."""
        return cast("list[Detector]", [*cast("nn.ModuleList", self[str(block)])])

    def newest(self, block: int) -> Detector:
        """Returns the last detector of a block."""
        return self.of(block)[-1]

    def append(self, block: int, detector: Detector) -> None:
        """Gives a block another detector."""
        held = cast("nn.ModuleList", self[str(block)])
        held.append(detector.requires_grad_(requires_grad=False))

    def judge(self, block: int, features: Tensor, labels: Tensor | None = None) -> Verdicts:
        """Asks each detector of a block about some data.

        Shape:
            features: (B, D). labels: (B,), where they are known.
        """
        held = self.of(block)
        if labels is None:
            verdicts = tuple(detector.check(features) for detector in held)
        else:
            verdicts = tuple(detector.check_labelled(features, labels) for detector in held)
        return Verdicts(len(features), verdicts)

    def judge_mixed(self, block: int, features: Tensor) -> Verdict:
        """Asks the detectors of a block about data that may mix the references of several.

        Each sample counts by the detector that knows it best, by the distance to its threshold. In
        a mixture of what they were fitted on these are at most the scores of each sample's own
        detector, so that no more windows fire than the detectors allow; and where this fires, so
        does each detector. Where one has no scores of samples, it fires where all fire.

        Shape:
            features: (B, D).

        Returns:
            The mean score, and the mean of the thresholds for B samples, of the detectors chosen.
        """
        verdicts = self.judge(block, features)
        scores = [detector.sample_scores(features) for detector in self.of(block)]
        known = [each for each in scores if each is not None]
        if len(known) < len(scores) or len(scores) == 1:
            return Verdict(verdicts.score, verdicts.threshold)
        table = torch.stack(known, dim=1).double()
        thresholds = table.new_tensor(verdicts.thresholds)
        best = (table - thresholds).argmin(dim=1)
        score = table.gather(1, best[:, None]).mean().item()
        return Verdict(score, thresholds[best].mean().item())

    def cost(self, block: int) -> int:
        """Returns the numbers that the first detector of a block holds."""
        return sum(int(value.numel()) for value in self.of(block)[0].state_dict().values())
