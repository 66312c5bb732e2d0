"""What the prompt methods share: a query, a classifier on prompted features, and two ablations.

A prompt method passes an image twice: without prompts for the query, which chooses prompts, and
with them for the features that are classified. `prompts="none"` leaves all prompts out, so that a
classifier is trained on frozen features, and `one_prompt` chooses nothing: what these reach is not
the method's doing. Both pass an image once.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cl_adapters.heads.linear import cross_entropy_over
from cl_adapters.peft.prompts import Init, Pairing, Selection
from cl_adapters.strategies.core.config import CLIP_NORM, TrainedConfig, TrainedHeadConfig
from cl_adapters.strategies.core.features import FeatureExtractor
from cl_adapters.strategies.core.optimizers import adam
from cl_adapters.strategies.core.output import Output
from cl_adapters.strategies.core.statistics import collect_features
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = [
    "KeyedConfig",
    "KeyedPromptStrategy",
    "PairedConfig",
    "PromptConfig",
    "PromptModel",
    "PromptStrategy",
]

# Of the weights of a new head, in the JAX original and in its port to PyTorch; None as torch does.
_HEAD_STDS: Final[dict[Init | None, float | None]] = {"jax": 0.0, "port": 0.02, None: None}


class PromptConfig(TrainedConfig, TrainedHeadConfig):
    """Options of every prompt method."""

    prompts: Literal["pool", "one_prompt", "none"] = Field(
        default="pool", description="pool: the method; one_prompt: no choice; none: head alone"
    )
    clip_norm: float | None = Field(default=1.0, gt=0, description=CLIP_NORM)

    @property
    def by_batch(self) -> str:
        """The options under which answers depend on a whole batch, as text; empty if none does."""
        return ""


class PairedConfig(PromptConfig):
    """Options of a method whose prompts are keys and values."""

    prompt_pairing: Pairing = Field(
        default="key_value", description="port: its mix-up of prompts, by which answers depend too"
    )

    @property
    def by_batch(self) -> str:
        """The options under which answers depend on a whole batch, as text; empty if none does."""
        is_mixed = self.prompt_pairing == "port" and self.prompts == "pool"
        mixed = "prompt_pairing=port" if is_mixed else ""
        return ", ".join(filter(None, [super().by_batch, mixed]))


class KeyedConfig(PromptConfig):
    """Options of a method whose prompts are found by keys that are pulled to the queries."""

    key_weight: float = Field(default=1.0, ge=0, description="w, of the pull on chosen keys")
    selection: Selection = Field(
        default="image", description="who chooses; batch: a vote, so that answers depend on others"
    )
    init: Init = Field(
        default="port",
        description="prompts and keys in [0, 0.01), head 0 (jax); in [-1, 1], head 0.02 (port)",
    )

    @property
    def by_batch(self) -> str:
        """The options under which answers depend on a whole batch, as text; empty if none does."""
        is_voted = self.selection == "batch" and self.prompts == "pool"
        voted = "selection=batch" if is_voted else ""
        return ", ".join(filter(None, [voted, super().by_batch]))


class PromptModel(nn.Module):
    """The backbone and the classifier; a method adds its prompts.

    Args:
        backbone: The frozen ViT.
        config: The method's options.
        init: Whose initial weights a new head has; None takes those of a fresh linear layer.
    """

    def __init__(self, backbone: AdaptedViT, config: PromptConfig, init: Init | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        std = _HEAD_STDS[init]
        if config.head == "cosine":  # of rows of length 0, which have no direction
            std = std or None
        self.heads = config.build_head(backbone.embed_dim, init_std=std)

    def forward(self, inputs: Tensor, query: Tensor | None = None) -> Output:
        """Returns the logits.

        Args:
            inputs: Images (B, 3, S, S), or features (B, D) where no prompts are left.
            query: The frozen network's features of the images, (B, D); None computes them.

        Shape:
            Output: (B, C), and what the method's loss needs.
        """
        if inputs.ndim == 2:
            return Output(self.heads(inputs))
        if self.config.prompts == "none":
            return Output(self.heads(self.backbone(inputs)))
        if query is None and self.config.prompts == "pool":
            with torch.no_grad():
                query = self.backbone(inputs)
        return self.prompted(inputs, query)

    @abstractmethod
    def prompted(self, images: Tensor, query: Tensor | None) -> Output:
        """Returns the logits of images with their prompts; without a query nothing is chosen."""

    def fixed_graph(self) -> nn.Module:
        """Returns itself: nothing in it branches on an image."""
        return self


class PromptStrategy(AdapterStrategy):
    """A prompt method: standard cross-entropy over the current classes, Adam, clipped gradients."""

    config: PromptConfig
    model: PromptModel
    model_class: ClassVar[Any]  # called as `PromptModel(backbone, config, seed)`

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: PromptConfig, seed: int) -> PromptModel:
        """Returns the backbone with its first prompts and no classes yet."""
        made: PromptModel = cls.model_class(backbone, config, seed)
        return made

    @property
    def answers_by_batch(self) -> bool:
        """Whether an option makes the answer for an image depend on the others of its batch."""
        return bool(self.config.by_batch)

    @property
    def has_pool(self) -> bool:
        """Whether prompts are chosen."""
        return self.config.prompts == "pool"

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Adds rows to the head."""
        self.model.heads.add_classes(classes, generator)

    def begin_epoch(self, epoch: int) -> None:
        """Lets a head without prompts train on features, where images come again."""
        if epoch == 0 and self.config.prompts == "none" and self.augmentation.inputs_repeat:
            self.train_on_features(self.frozen_features())

    def train_only(self, *parts: nn.Module | nn.Parameter) -> None:
        """Freezes all but some parts, and makes a fresh optimiser over these."""
        self.model.requires_grad_(requires_grad=False)
        for part in parts:
            values = part.parameters() if isinstance(part, nn.Module) else [part]
            for value in values:
                value.requires_grad = True
        self.make_optimizer()

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns Adam without weight decay."""
        return adam(parameters, self.config.lr)

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the current classes."""
        return cross_entropy_over(self.current_classes, logits, targets)

    def end_experience(self) -> None:
        """Says what the query is, and whether answers depend on their batch."""
        images = self.eval_mb_size if self.answers_by_batch else 0
        facts = {"by_batch": self.config.by_batch, "batch_images": images}
        self.log_event("prompts", reads=self.backbone.reads, **facts)

    def features_under(self, compute: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Returns what is computed of the experience's images, not augmented, and labels (N,)."""
        images = len(self.experience.dataset)
        with self.events.timed("statistics", images), self.features.autocast():
            return collect_features(self.plain_images(), compute)

    def query_rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the queries of the experience's images, not augmented, and labels (B,)."""
        plain = self.features.feature_extractor(self.backbone, self.backbone)
        for rows, labels in self.features.cached_features(self.experience.dataset, plain).batches():
            yield rows.to(self.device), labels.to(self.device)

    def query_features(self) -> FeatureExtractor | None:
        """Returns the frozen network's own features; None where nothing is chosen."""
        if not self.has_pool:
            return None
        return self.features.feature_extractor(self.backbone, self.backbone)

    def frozen_features(self) -> FeatureExtractor | None:
        """Returns the same where they are classified, without prompts."""
        if self.config.prompts != "none":
            return None
        return self.features.feature_extractor(self.backbone, self.backbone)


class KeyedPromptStrategy(PromptStrategy):
    """A prompt method whose model says in `extras` how near the chosen keys are: as `pull`."""

    config: KeyedConfig

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the current classes, less the pull on the chosen keys."""
        loss = super().batch_loss(logits, targets)
        if self.output is None or "pull" not in self.output.extras:
            return loss
        near: Tensor = self.output.extras["pull"]
        return loss - self.config.key_weight * near
