"""Statistics of classes and the alignment of a head on them, as several methods have them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from cl_adapters.heads.alignment import Alignment, MeanScaling, align_head, mean_scales
from cl_adapters.heads.class_to_task import ClassToTask
from cl_adapters.heads.gaussians import FLOOR, ClassGaussians, Statistics
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.heads.unaligned import UnalignedHead
from cl_adapters.strategies.core.config import StrategyOptions
from cl_adapters.strategies.core.event_log import EventLog

__all__ = ["AlignmentConfig", "HasAlignedHead", "collect_features"]


class HasAlignedHead(Protocol):
    """A model with a head that is aligned on statistics of classes."""

    heads: ExperienceHeads
    classes: ClassGaussians
    class_to_task: ClassToTask
    unaligned: UnalignedHead | None  # the head before, where it is to be put back


class AlignmentConfig(StrategyOptions):
    """What is kept of each class, and how a head is realigned on samples of that.

    With all that papers do to samples, logits and the head afterwards; a method that shares these
    options has defaults of its own.
    """

    statistics: Statistics = Field(default="low_rank", description="what is kept of a class")
    rank: int = Field(default=128, ge=1, description="directions of low_rank statistics")
    alignment: bool = Field(default=True, description="realign the head on the statistics")
    alignment_epochs: int = Field(default=30, ge=1, description="rounds of new samples")
    alignment_lr: float = Field(default=0.005, gt=0, description="of SGD, cosine to 0")
    variance_floor: float = Field(default=FLOOR, gt=0, description="added to every variance")
    alignment_samples: int | None = Field(
        default=None,
        ge=1,
        description="of a class in a round, and in a step; None: five times `batch_size`",
    )
    alignment_period: int | None = Field(
        default=None,
        ge=1,
        description="rounds until the rate is 0, then it rises; None: `alignment_epochs`",
    )
    mean_scaling: MeanScaling = Field(
        default="none",
        description="factor on class means: slca, the older the smaller; tuna, as published, "
        "the newer the smaller",
    )
    logit_temperature: float | None = Field(
        default=None, gt=0, description="tau of logits of normalised length; None: as they are"
    )
    head_restore: bool = Field(
        default=False, description="put the head back as it was before it learns on"
    )

    def build_statistics(self, num_features: int) -> ClassGaussians:
        """Returns statistics of no class yet."""
        return ClassGaussians(
            num_features, self.statistics, rank=self.rank, floor=self.variance_floor
        )

    def build_unaligned(self) -> UnalignedHead | None:
        """Returns where a head is kept that is to be put back, None if it is not."""
        return UnalignedHead() if self.head_restore else None

    def alignment_settings(self) -> Alignment:
        """Returns how a head is aligned, by default with batches of five times training's size."""
        return Alignment(
            epochs=self.alignment_epochs,
            batch_size=self.alignment_samples or 5 * int(getattr(self, "batch_size", 32)),
            lr=self.alignment_lr,
            weight_decay=float(getattr(self, "weight_decay", 0.0)),
            schedule_epochs=self.alignment_period,
            temperature=self.logit_temperature,
        )

    def align(
        self,
        model: HasAlignedHead,
        generator: torch.Generator,
        events: EventLog,
        *,
        through: nn.Module | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> nn.Linear | None:
        """Realigns the rows of all classes that have statistics, if `alignment` says so.

        Args:
            model: Whose head.
            generator: Source of randomness, on the CPU.
            events: What is told how long it takes.
            through: What features pass before the head, trained along with it.
            changes: Fields of `Alignment` that differ.

        Returns:
            These rows as one layer, by rising label, with the gradients of the last step; None
            where nothing is realigned.
        """
        if not self.alignment:
            return None
        if model.unaligned is not None and not model.unaligned.is_kept:
            model.unaligned.keep(model.heads)
        labels = torch.unique(model.classes.labels).tolist()
        head, options = model.heads.joined(labels), self.alignment_settings()
        options = replace(options, **(changes or {}))
        experiences = model.class_to_task.experience_of[labels]
        steps = len(labels) if options.steps is None else min(options.steps, len(labels))
        with events.timed("alignment", options.epochs * options.batch_size * steps):
            align_head(
                head if through is None else nn.Sequential(through, head),
                model.classes,
                generator,
                options,
                experiences=experiences,
                mean_scales=mean_scales(self.mean_scaling, experiences),
            )
        model.heads.assign(labels, head)
        return head

    def restore_head(self, model: HasAlignedHead) -> None:
        """Puts the head back that was kept by the last alignment, before it learns on or grows."""
        if model.unaligned is not None:
            model.unaligned.restore(model.heads)


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
