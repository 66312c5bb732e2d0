"""Statistics of classes and the alignment of a head on them, as several methods have them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from cl_adapters.heads.alignment import Alignment, align_head
from cl_adapters.heads.gaussians import ClassGaussians, Statistics
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.strategies.core.config import StrategyOptions
from cl_adapters.strategies.core.event_log import EventLog

__all__ = ["AlignmentConfig", "collect_features"]


class AlignmentConfig(StrategyOptions):
    """What is kept of each class, and how a head is realigned on samples of that."""

    statistics: Statistics = Field(default="low_rank", description="what is kept of a class")
    rank: int = Field(default=128, ge=1, description="directions of low_rank statistics")
    alignment: bool = Field(default=True, description="realign the head on the statistics")
    alignment_epochs: int = Field(default=30, ge=1, description="rounds of new samples")
    alignment_lr: float = Field(default=0.005, gt=0, description="of SGD, cosine to 0")

    def build_statistics(self, num_features: int) -> ClassGaussians:
        """Returns statistics of no class yet."""
        return ClassGaussians(num_features, self.statistics, rank=self.rank)

    def align(
        self,
        heads: ExperienceHeads,
        classes: ClassGaussians,
        generator: torch.Generator,
        events: EventLog,
        *,
        through: nn.Module | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> None:
        """Realigns the rows of all classes that have statistics, if `alignment` says so.

        The batches are five times those of training, of which the config has the size.

        Args:
            heads: Whose rows.
            classes: Statistics of features.
            generator: Source of randomness, on the CPU.
            events: What is told how long it takes.
            through: What features pass before the head, trained along with it.
            changes: Fields of `Alignment` that differ.
        """
        if not self.alignment:
            return
        labels = torch.unique(classes.labels).tolist()
        head = heads.joined(labels)
        options = Alignment(
            epochs=self.alignment_epochs,
            batch_size=5 * int(getattr(self, "batch_size", 32)),
            lr=self.alignment_lr,
            weight_decay=float(getattr(self, "weight_decay", 0.0)),
        )
        options = replace(options, **(changes or {}))
        steps = len(labels) if options.steps is None else min(options.steps, len(labels))
        with events.timed("alignment", options.epochs * options.batch_size * steps):
            whole = head if through is None else nn.Sequential(through, head)
            align_head(whole, classes, generator, options)
        heads.assign(labels, head)


@torch.no_grad()
def collect_features(
    batches: Iterable[tuple[Tensor, Tensor]], compute: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Returns the features (N, D) of all images, and their labels (N,).

    Args:
        batches: Images (B, 3, S, S) and labels (B,).
        compute: From images to features (B, D).
    """
    rows, targets = zip(*((compute(images), labels) for images, labels in batches), strict=True)
    return torch.cat(rows), torch.cat(targets)
