"""CL-LoRA: one low-rank update that all experiences share, and one an experience behind it.

The first half of the blocks has one update, trained on in every experience and held by distillation
to what it was; the second half gets a new one each time, frozen afterwards, whose blocks count as
much as learned weights say. A class is scored by its mean under the update of its own experience.
What the first half makes of an image is computed once for all of them.

Reference: Jiangpeng He, Zhihao Duan, Fengqing Zhu, "CL-LoRA: Continual Low-Rank Adaptation for
Rehearsal-Free Class-Incremental Learning", CVPR 2025, arXiv:2505.24816.

Updates are of rank R, of queries and values; rows of A are orthonormal, B begins at 0. With mu the
weights of the current experience, (3, L / 2), uniform in 0.5 to 1.5, for queries, keys (which have
no update, so that only the last term below and weight decay move theirs) and values:

    experience 0   A and B of both halves, mu and a cosine head of learned scale are trained by
                   cross-entropy; SGD with momentum 0.9 along a cosine
    experience t   a new second half, mu and head; A of the first half stays. Cross-entropy, and
      distillation   5 H(p', p) of the first half, its output normed and given to the head, as it
                   is (p) and as it was before t (p'), at temperature 2; its gradient on row j of
                   B counts D ||b_j|| / sum over k of ||b_k||, of B as it was
      orthogonality  1e-4 times the mean over i < t of |cos(mu, mu_i)|
    after it       p_c = mean under update t of each current class, images not augmented
    answer         argmax of cos(f_i, p_c), i the experience of c; p_c stays although the first half
                   moves on

After experience t an image passes the first half once and the second t + 1 times
(`cl_adapters/vit/halves.py`).

Differs from the authors' code, unless `fidelity="official"`:
    `kd_step="one_step"`  both losses in one step of the optimiser. Theirs takes two a batch,
                          with one momentum and the weight decay twice, the first for distillation.
                          It computes both losses before the first step and fails where torch sees
                          that; `separate_forward` computes the second after it.
    `batch_size=32`, `epochs=20`, `lr=0.1`  theirs are 64, 30 and 0.03, for many steps an experience
`gradient_rescale=False` is plain distillation. Without an option:
    one class             an experience of one class trains nothing
    means                 of a class are kept under its own update alone: no other is read
    classes that return   are scored under the update of their last experience, by its images alone
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from cl_adapters.heads.distillation import soft_cross_entropy
from cl_adapters.heads.linear import cross_entropy_over
from cl_adapters.heads.subspaces import SubspacePrototypes
from cl_adapters.strategies.core.config import SGDConfig
from cl_adapters.strategies.core.optimizers import clip_gradients, set_cosine_rates, sgd
from cl_adapters.strategies.core.renewed_head import RenewedHeadModel
from cl_adapters.strategies.core.strategy import AdapterStrategy, Phase
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.halves import Halves

__all__ = ["CLLoRA", "CLLoRAConfig", "CLLoRAModel"]

_TEMPERATURE: Final = 2.0


class CLLoRAConfig(SGDConfig):
    """Options of CL-LoRA."""

    epochs: int = Field(default=20, ge=1, description="passes over the images of an experience")
    lr: float = Field(default=0.1, gt=0, description="of SGD, cosine to 0")
    weight_decay: float = Field(default=1e-4, ge=0, description="of SGD")
    rank: int = Field(default=8, ge=1, description="R of an update")
    distillation: float = Field(default=5.0, ge=0, description="weight of distillation")
    orthogonality: float = Field(
        default=1e-4, ge=0, description="weight of the cosines of mu to earlier ones"
    )
    gradient_rescale: bool = Field(
        default=True, description="distillation counts more in longer rows of B"
    )
    kd_step: Literal["one_step", "separate_forward"] = Field(
        default="one_step", description="whether distillation has a step of its own"
    )

    @classmethod
    def official(cls) -> Self:
        """Returns the authors' settings for CIFAR-100."""
        return cls(batch_size=64, epochs=30, lr=0.03, kd_step="separate_forward")


class CLLoRAModel(RenewedHeadModel):
    """The backbone, the updates of its halves, the head in training, and class means."""

    def __init__(self, backbone: AdaptedViT, config: CLLoRAConfig) -> None:
        super().__init__()
        self.backbone, self.halves = backbone, Halves(backbone, config.rank)
        self.renew_head([], torch.Generator())
        self.prototypes = SubspacePrototypes(backbone.embed_dim, alpha=0.0)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, C) of images (B, 3, S, S): of the head in training, else scores."""
        if not self.training and self.prototypes.num_spaces:
            return self.prototypes.scores(self.halves.all_features(self.backbone, images))
        tokens = self.halves.first(self.backbone, images)
        found = self.halves.second(self.backbone, tokens)
        return self.training_logits(found, len(self.prototypes))


class CLLoRA(AdapterStrategy):
    """Trains a first half that experiences share and a second half for each of them."""

    config_class = CLLoRAConfig
    config: CLLoRAConfig
    model: CLLoRAModel
    pieces = ("distillation", "prototypes", "updates")

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: CLLoRAConfig, seed: int) -> CLLoRAModel:  # noqa: ARG003
        """Returns the backbone with two halves that have learned nothing yet."""
        return CLLoRAModel(backbone, config)

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Makes a new head over these classes, and room for their means."""
        self.model.renew_head(classes, generator)
        self.model.prototypes.add_classes(classes)

    def begin_experience(self) -> None:
        """Draws a new second half; keeps the first as it is, to be held to it."""
        is_first = len(self.classes_by_experience) == 1
        self.model.halves.begin(self.generator("update"), is_first=is_first)
        self.previous = self.model.halves.shared.up.detach().clone()
        self.learns_by_gradient = len(self.current_classes) > 1
        self.is_held = self.learns_by_gradient and not is_first and self.config.distillation > 0

    def phases(self) -> Iterator[Phase]:
        """Yields the training, unless there is nothing to tell apart."""
        if self.learns_by_gradient:
            yield Phase("train", self.config.epochs)

    def forward(self) -> Tensor:
        """Computes the batch's logits, in training after distillation's own step if it has one."""
        if self.is_training and self.is_held and self.config.kd_step == "separate_forward":
            loss = self.distillation_loss()
            self.guard.watch("loss", loss)
            torch.autograd.backward(loss)
            clip_gradients(self.optimizer, self.config.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return super().forward()

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns cross-entropy and orthogonality, and distillation unless it has its own step."""
        loss = cross_entropy_over(self.current_classes, logits, targets)
        loss = loss + self.config.orthogonality * self.model.halves.weights.likeness()
        is_one = self.is_held and self.config.kd_step == "one_step"
        return loss + self.distillation_loss() if is_one else loss

    def distillation_loss(self) -> Tensor:
        """Returns the weighted distillation of the first half, for the images of the batch."""
        head, rescale = self.model.head, self.config.gradient_rescale
        with self.features.autocast():
            now, before = self.model.halves.half_features(
                self.backbone, self.mb_x, self.previous, rescale=rescale
            )
            loss = soft_cross_entropy(head(now), head(before), _TEMPERATURE)
        return self.config.distillation * loss

    @torch.no_grad()
    def end_experience(self) -> None:
        """Freezes the second half, and takes the means of its classes under it."""
        halves, number = self.model.halves, len(self.model.halves.specific)
        halves.freeze()
        passes = len(self.experience.dataset)
        with self.events.timed("prototypes", passes), self.features.autocast():
            for images, labels in self.plain_images():
                tokens = halves.first(self.backbone, images)
                found = halves.second(self.backbone, tokens, number)
                self.model.prototypes.add(number, found, labels)

    def rebuild(self, state: Mapping[str, Tensor]) -> None:
        """Makes room for the means of a checkpoint."""
        counts = state.get("prototypes.counts", torch.zeros(0, 0))
        self.model.prototypes.add_spaces(counts.shape[-1])

    def begin_epoch(self, epoch: int) -> None:
        """Lowers the learning rate along a cosine."""
        set_cosine_rates(self.optimizer, epoch, self.config.epochs)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns SGD with momentum 0.9."""
        is_one = self.config.kd_step == "one_step"
        return sgd(parameters, self.config.lr, self.config.weight_decay, fused=is_one)
