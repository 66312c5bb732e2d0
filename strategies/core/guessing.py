"""Which experience an image belongs to, guessed from frozen features: HiDe-Prompt's first stage."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cl_adapters.heads.class_to_task import ClassToTask
from cl_adapters.heads.gaussians import Statistics
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.heads.residual import ResidualMLP
from cl_adapters.heads.unaligned import UnalignedHead
from cl_adapters.strategies.core.event_log import EventLog
from cl_adapters.strategies.core.statistics import AlignmentConfig, HasAlignedHead

__all__ = ["GuessConfig", "TaskGuess"]


class GuessConfig(AlignmentConfig):
    """How the experience of an image is guessed, and heads are aligned."""

    statistics: Statistics = Field(default="centroids", description="what is kept of a class")
    steps: Literal["old", "seen"] = Field(
        default="seen", description="classes that an epoch of alignment has a step for each of"
    )
    guess_lr: float = Field(default=0.001, gt=0, description="of Adam, for the guess")
    guess_epochs: int = Field(default=20, ge=1, description="passes that train the guess")
    guess_alignment_lr: float = Field(
        default=0.005 * 24 / 256, gt=0, description="of its alignment by SGD, cosine to 0"
    )

    def align_on(
        self,
        model: HasAlignedHead,
        batches: Iterable[tuple[Tensor, Tensor]],
        generator: torch.Generator,
        events: EventLog,
        *,
        through: nn.Module | None = None,
        **changes: Any,  # noqa: ANN401 - fields of `Alignment`
    ) -> None:
        """Keeps statistics of an experience's classes; aligns all from the second experience on.

        Args:
            model: Whose head, and what is kept so far.
            batches: Features (B, F) and labels (B,).
            generator: Source of randomness, on the CPU.
            events: What is told how long it takes.
            through: What features pass before the head, trained along with it.
            **changes: Fields of `Alignment` that differ.
        """
        rows, labels = (torch.cat(each) for each in zip(*batches, strict=True))
        old = len(torch.unique(model.classes.labels))
        for label in model.classes.add_all(rows.float(), labels):
            facts: dict[str, Any] = {"class": label, "rule": "spread of an average class"}
            events.log_event("statistics", **facts)
        if old:
            changes |= {"steps": old} if self.steps == "old" else {}
            with torch.enable_grad():
                self.align(model, generator, events, through=through, changes=changes)


class TaskGuess(nn.Module):
    """A classifier on frozen features, of which only the experience of the class is asked for.

    Args:
        num_features: F.
        config: What is kept of a class.
        generator: Source of the initial weights.
    """

    def __init__(self, num_features: int, config: GuessConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.mlp = ResidualMLP(num_features, generator)
        self.heads = ExperienceHeads(num_features, init_std=0.02)
        self.classes = config.build_statistics(num_features)
        self.class_to_task = ClassToTask()
        self.unaligned: UnalignedHead | None = None  # its MLP would have to go back as well

    def add_classes(
        self, classes: Sequence[int], experience: int, generator: torch.Generator
    ) -> None:
        """Makes room for classes, and says that they are an experience's."""
        self.heads.add_classes(classes, generator)
        self.class_to_task.register(classes, experience)

    def forward(self, features: Tensor) -> Tensor:
        """Returns logits (B, C) of features (B, F)."""
        logits: Tensor = self.heads(self.mlp(features))
        return logits

    def experience_of(self, features: Tensor) -> Tensor:
        """Returns the experience of the likeliest class: (B,) of features (B, F)."""
        found: Tensor = self.class_to_task(self(features).argmax(dim=1))
        return found

    def align(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        config: GuessConfig,
        generator: torch.Generator,
        events: EventLog,
    ) -> None:
        """Keeps statistics of an experience's classes; from the second on aligns all, MLP too.

        Args:
            batches: Frozen features (B, F) and labels (B,).
            config: How.
            generator: Source of randomness, on the CPU.
            events: What is told how long it takes.
        """
        samples = config.alignment_samples or int(getattr(config, "batch_size", 32))
        config.align_on(
            self,
            batches,
            generator,
            events,
            through=self.mlp,
            batch_size=samples,
            lr=config.guess_alignment_lr,
        )
