"""InfLoRA: low-rank updates whose directions interfere with no earlier experience.

Each experience adds a low-rank update B A to the keys and values of every block. A is set before
training and then stays: to the strongest directions of the new inputs that are free of what earlier
experiences used. Only B is trained. What the network makes of earlier inputs hardly moves, and
the update is merged into the weights, so that an image costs one pass for ever.

Reference: Yan-Shuo Liang, Wu-Jun Li, "InfLoRA: Interference-Free Low-Rank Adaptation for Continual
Learning", CVPR 2024, arXiv:2404.00228.

With u what enters attention in a block (after its norm), M = E[u u'] over all tokens of the
experience's images, and U the directions that earlier experiences use there (DualGPM,
`cl_adapters/peft/gradient_spaces.py`):

    before         M with the network so far; A_t = the first R left singular vectors of
    experience t   M - U U' M, as rows, divided by sqrt 3; shared by keys and values; B_t = 0
    training       cross-entropy over the current classes; Adam over B_t and a new linear head,
                   its rate along a quarter of a cosine
    after it       M with the trained network; U takes in directions until it holds the share
                   eps_t = lamb + (lame - lamb) t / T of the squared singular values of M;
                   W_k += B_t,k A_t, W_v += B_t,v A_t
    answer         argmax over all heads

T is `experiences_total`: `cl-adapters run` takes it from the stream, and the checkpoint keeps it.
Where nobody knows it (boundaries that are detected, code of one's own) 10 is taken; from experience
T on, as in a run that goes on with another, eps stays where it was.

Differs from the authors' code, unless `fidelity="official"`:
    `batch_size=32`, `lr=0.002`  theirs are 128 and 0.0005, for many steps an experience
    `head_init_std=0.001`  theirs draws a fresh linear layer, whose noise lasts where steps are few
    `moments="plain"`     M is of images as evaluation shows them; theirs are augmented at random
    `first_form="convert"`  where the first experience uses half of the directions, theirs keeps
                          these as if they were free (`published`), and stops above half
Without an option:
    biases                of a new head start at 0; theirs are drawn
    a direction too few   where fewer than R are free, the rest of A is 0; theirs is arbitrary
`blocks=5` is their variant b5. Not built in: keys that they cluster and never read; SGD for
DomainNet; alignment.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from cl_adapters.heads.linear import cross_entropy_over
from cl_adapters.heads.registry import build_trained_head
from cl_adapters.peft.gradient_spaces import GradientSpace
from cl_adapters.peft.low_rank import LowRankBank
from cl_adapters.schedule import quarter_cosine
from cl_adapters.strategies.core.config import TrainedConfig
from cl_adapters.strategies.core.optimizers import adam, set_cosine_rates
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.classifier import AdaptedClassifier
from cl_adapters.vit.moments import input_moments
from cl_adapters.vit.reweighted import features_under, updated, with_weights

__all__ = ["InfLoRA", "InfLoRAConfig", "InfLoRAModel"]

_UNKNOWN: Final = 10  # experiences, where nobody says how many


class InfLoRAConfig(TrainedConfig):
    """Options of InfLoRA."""

    batch_size: int = Field(default=32, ge=1, description="images in a training step")
    epochs: int = Field(default=20, ge=1, description="passes over the images of an experience")
    lr: float = Field(default=2e-3, gt=0, description="of Adam, along a quarter of a cosine")
    rank: int = Field(default=10, ge=1, description="R of an experience's update")
    blocks: int | None = Field(
        default=None, ge=1, description="how many are updated, from the first on; None: all"
    )
    lamb: float = Field(default=0.95, gt=0, le=1, description="threshold of DualGPM at the start")
    lame: float = Field(default=1.0, gt=0, le=1, description="what it rises to at experience T")
    head_init_std: float | None = Field(
        default=0.001, gt=0, description="of a new head's weights; None: as a fresh linear layer's"
    )
    experiences_total: int | None = Field(
        default=None, ge=1, description="T of the stream; None: the stream's own, 10 if unknown"
    )
    moments: Literal["plain", "augmented"] = Field(
        default="plain", description="which images the directions are taken from"
    )
    first_form: Literal["convert", "published"] = Field(
        default="convert", description="where the first experience uses half of the directions"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lame < self.lamb:
            raise ValueError(f"`lame` must be at least `lamb`, {self.lamb}, got {self.lame}")
        return self

    @classmethod
    def official(cls) -> Self:
        """Returns the authors' settings for CIFAR-100."""
        options = cls(batch_size=128, lr=5e-4, head_init_std=None)
        return options.override({"moments": "augmented", "first_form": "published"})

    def threshold(self, experience: int, total: int) -> float:
        """Returns eps of an experience, counted from 0, of so many in all."""
        share = min(experience, total - 1) / total
        return self.lamb + (self.lame - self.lamb) * share


class InfLoRAModel(nn.Module):
    """The backbone, updates of its keys and values, what these must leave alone, and heads."""

    def __init__(self, backbone: AdaptedViT, config: InfLoRAConfig) -> None:
        super().__init__()
        self.backbone = backbone
        count = min(config.blocks or backbone.num_blocks, backbone.num_blocks)
        dim, blocks = backbone.embed_dim, range(count)
        self.updates = LowRankBank(dim, blocks, config.rank, ("key", "value"), shares_down=True)
        self.updates.down.requires_grad = False
        spaces = [GradientSpace(dim) for _ in blocks]
        self.spaces = cast("Sequence[GradientSpace]", nn.ModuleList(spaces))
        self.heads = build_trained_head("linear", dim, init_std=config.head_init_std)
        self.register_buffer("experiences_total", torch.tensor(0))
        self.experiences_total: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, C) of images (B, 3, S, S), all updates merged but one in training."""
        if self.training:
            weights = updated(self.backbone, self.updates.stored())
            adapters = self.updates.current().adapters()
        else:
            weights, adapters = updated(self.backbone, self.updates.total()), None
        logits: Tensor = self.heads(features_under(self.backbone, weights, images, adapters))
        return logits

    def moments(self, batches: Iterable[Tensor]) -> list[Tensor]:
        """Returns M of each updated block, (D, D) in float64, of the network as it is."""
        weights = updated(self.backbone, self.updates.total())
        return input_moments(self.backbone, weights, self.updates.blocks, batches)

    def fixed_graph(self) -> nn.Module:
        """Returns the network with all updates as its own weights."""
        weights = updated(self.backbone, self.updates.total())
        return AdaptedClassifier(with_weights(self.backbone, weights), None, self.heads)


class InfLoRA(AdapterStrategy):
    """Trains updates of keys and values in directions that earlier experiences left free."""

    config_class = InfLoRAConfig
    config: InfLoRAConfig
    model: InfLoRAModel
    pieces = ("directions", "heads", "updates")

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: InfLoRAConfig, seed: int) -> InfLoRAModel:  # noqa: ARG003
        """Returns the backbone without an update and without heads."""
        return InfLoRAModel(backbone, config)

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Adds a head for the new classes."""
        self.model.heads.add_classes(classes, generator)

    def begin_experience(self) -> None:
        """Sets A to the strongest of the free directions, and B to 0."""
        model = self.model
        if len(self.classes_by_experience) == 1:
            model.experiences_total.fill_(self.config.experiences_total or _UNKNOWN)
        pairs = zip(model.spaces, self._moments("before"), strict=True)
        rows = [space.free_directions(each, self.config.rank) for space, each in pairs]
        model.updates.renew(torch.stack(rows)[:, None] / 3**0.5)

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the classes of the current experience."""
        return cross_entropy_over(self.current_classes, logits, targets)

    def end_experience(self) -> None:
        """Takes in the directions that the experience used, and merges its update."""
        model, number = self.model, len(self.classes_by_experience) - 1
        total = int(model.experiences_total)
        threshold = self.config.threshold(number, total)
        for space, moment in zip(model.spaces, self._moments("after"), strict=True):
            space.update(moment, threshold, published=self.config.first_form == "published")
        model.updates.freeze()
        used = [space.num_used for space in model.spaces]
        self.log_event("directions", threshold=threshold, experiences=total, used=used)

    def _moments(self, moment: str) -> list[Tensor]:
        augmented = self.config.moments == "augmented"
        shown = self.training_images(moment) if augmented else self.plain_images()
        with self.events.timed("moments", len(self.experience.dataset)), self.features.autocast():
            return self.model.moments(images for images, _ in shown)

    def begin_epoch(self, epoch: int) -> None:
        """Lowers the learning rate along a quarter of a cosine."""
        set_cosine_rates(self.optimizer, epoch, self.config.epochs, quarter_cosine)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns Adam."""
        return adam(parameters, self.config.lr)
