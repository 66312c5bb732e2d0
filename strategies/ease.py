"""EASE: an adapter set for each experience, and class means in the subspaces of all of them.

Each experience trains adapters of its own, which nothing changes afterwards. What an image looks
like under each set is a subspace. A class has means in all of them, is scored in its own, and a
little in the others. Where a class of an earlier experience has no images for a later subspace, its
mean there is put together from those of the new classes, by how alike they are.

Reference: Da-Wei Zhou, Hai-Long Sun, Han-Jia Ye, De-Chuan Zhan, "Expandable Subspace Ensemble for
Pre-Trained Model-Based Class-Incremental Learning", CVPR 2024, arXiv:2403.12030.

In experience t:

    train        a fresh adapter set, under a cosine head of the current classes whose scale is
                 learned, by cross-entropy and SGD along a cosine; the head is thrown away
    means        p_cj, of the images of each current class c under each set j = 0 ... t
    mapping      of an earlier class c, of experience i, and each set j > i: p_cj = sum w_k p_kj,
                 w the softmax of cos(p_ci, p_ki) over the classes k that have images under both
    answer       argmax of cos(f_i, p_ci) + alpha / t sum over j != i of cos(f_j, p_cj)

`cl_adapters/heads/subspaces.py` holds the means. An image takes t + 1 passes, of which a cache of
features keeps all: each set sees each image once in a stream.

Differs from the authors' code, unless `fidelity="official"`:
    `peft_scale=1.0`     their adapters' output counts a tenth, which learns little in the few steps
                         of a small stream
Whatever it says: `scale` multiplies the score before the softmax that gives the reported
confidence; means are kept as sums, so that a class that returns has those of all its images; there
is no subspace of the bare network, which theirs adds on CUB with weights of ImageNet-1k, and no
option for all subspaces alike. Learning rate, decay and alpha are theirs for CIFAR-100; for
ImageNet-R they take `lr=0.05`, `batch_size=16`, `weight_decay=0.005`.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.heads.linear import UNSEEN_LOGIT, cross_entropy_over
from cl_adapters.heads.registry import build_trained_head
from cl_adapters.heads.subspaces import SubspacePrototypes
from cl_adapters.peft.bank import AdapterBank
from cl_adapters.strategies.core.config import AdapterSGDConfig
from cl_adapters.strategies.core.extractors import AdapterFeatureExtractor
from cl_adapters.strategies.core.optimizers import set_cosine_rates, sgd
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["EASE", "EASEConfig", "EASEModel"]


class EASEConfig(AdapterSGDConfig):
    """Options of EASE; the defaults are the authors' for CIFAR-100, but for `peft_scale`."""

    lr: float = Field(default=0.025, gt=0, description="of SGD, cosine to 0")
    alpha: float = Field(default=0.1, ge=0, description="share of subspaces not a class's own")
    scale: float = Field(default=10.0, gt=0, description="of the reported confidence")


class EASEModel(nn.Module):
    """The backbone, the set in training with its head, the frozen sets, and class means."""

    def __init__(self, backbone: AdaptedViT, config: EASEConfig, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.current_adapters = config.build_stack(backbone, seed)
        self.frozen_adapters = AdapterBank(self.current_adapters)
        self.prototypes = SubspacePrototypes(
            backbone.embed_dim, alpha=config.alpha, scale=config.scale
        )
        self.begin(())

    def begin(self, classes: Sequence[int], generator: torch.Generator | None = None) -> None:
        """Puts a new head in place of the one before, for some classes."""
        self.head = build_trained_head(
            "cosine", self.backbone.embed_dim, init_std=None, scale=1.0, learn_scale=True
        )
        if generator is not None:
            self.head.add_classes(classes, generator)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the head's logits in train mode, the scores in eval mode.

        Shape:
            images: (B, 3, S, S). Output: (B, C).
        """
        if self.training or len(self.frozen_adapters) == 0:
            logits: Tensor = self.head(self.backbone(images, self.current_adapters.adapters()))
            missing = max(0, self.prototypes.counts.shape[1] - logits.shape[1])
            return functional.pad(logits, (0, missing), value=UNSEEN_LOGIT)
        sets = [self.frozen_adapters.choose(each) for each in range(len(self.frozen_adapters))]
        features = self.backbone.features_of(images, sets)
        return self.scores(features.reshape(len(sets), -1, features.shape[1]))

    def answer(self, images: Tensor, features_under: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Returns the scores: the paper's inference.

        Args:
            images: (B,), what `features_under` calls the images.
            features_under: From images (b,) and a frozen set for each (b,) to features (b, D).
        """
        found = [
            features_under(images, torch.full_like(images, each))
            for each in range(len(self.frozen_adapters))
        ]
        return self.scores(torch.stack(found))

    def scores(self, features: Tensor) -> Tensor:
        """Returns the scores (B, C) of features (T, B, D), in full precision."""
        with torch.autocast(features.device.type, enabled=False):
            scores: Tensor = self.prototypes(features.float())
        return scores


class EASE(AdapterStrategy):
    """Trains an adapter set for each experience and keeps class means under all of them."""

    config_class = EASEConfig
    config: EASEConfig
    model: EASEModel

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: EASEConfig, seed: int) -> EASEModel:
        """Returns the backbone with one adapter set that has learned nothing yet."""
        return EASEModel(backbone, config, seed)

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Makes a new head for the classes of the experience, and room for its subspace."""
        self.model.begin(classes, generator)
        self.model.prototypes.add_classes(classes)

    def begin_experience(self) -> None:
        """Draws fresh adapters."""
        model, source = self.model, self.generator("adapters")
        fresh = self.config.build_stack(self.backbone, source.initial_seed())
        model.current_adapters.load_state_dict(fresh.state_dict())
        model.current_adapters.noise = self.generator("dropout", self.device)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns SGD over the adapters and the head."""
        return sgd(parameters, self.config.lr, self.config.weight_decay)

    def begin_epoch(self, epoch: int) -> None:
        """Lowers the learning rate along a cosine that reaches 0 after the experience."""
        set_cosine_rates(self.optimizer, epoch, self.config.epochs)

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the classes of the experience."""
        return cross_entropy_over(self.current_classes, logits, targets)

    @torch.no_grad()
    def end_experience(self) -> None:
        """Freezes the adapters, and adds the experience to its classes' means in all subspaces."""
        frozen, passes = self.model.frozen_adapters, len(self.classes_by_experience)
        frozen.append(self.model.current_adapters.tensors())
        with self.events.timed("prototypes", passes * len(self.experience.dataset)):
            for images, labels in self.plain_images():
                for number in range(passes):
                    with self.features.autocast():
                        features = self.backbone(images, frozen.choose(number))
                    self.model.prototypes.add(number, features, labels)

    def generators(self) -> Mapping[str, torch.Generator]:
        """Returns what the adapters' dropout draws from."""
        noise = self.model.current_adapters.noise
        return {} if noise is None else {"dropout": noise}

    def frozen_adapter_features(self) -> AdapterFeatureExtractor | None:
        """Returns the features under each frozen set."""
        frozen = self.model.frozen_adapters
        return self.features.adapter_feature_extractor(frozen) if len(frozen) else None
