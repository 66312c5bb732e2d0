"""EASE: a feature space for each experience, and class means in all of them.

Each experience trains a fresh PEFT set, then frozen. Class means stand in the features under every
set; a class whose images are gone gets its mean under a later set from classes that are like it.

Reference: Da-Wei Zhou, Hai-Long Sun, Han-Jia Ye, De-Chuan Zhan, "Expandable Subspace Ensemble for
Pre-Trained Model-Based Class-Incremental Learning", CVPR 2024, arXiv:2403.12030.

With f_j the feature under set j, p_{c,j} the mean of class c in that space, i the experience of c:

    experience t    a fresh set t is trained with a cosine head over the classes of t, of learned
                    scale, by cross-entropy; the head is thrown away, the set frozen
    its classes     p_{c,j} = mean of f_j over the images of c, not augmented, for j = 0 ... t
    earlier ones    p_{c,j} = sum of w_k p_{k,j} for j > i, over the classes k of j ... t,
                    w = softmax over k of cos(p_{c,i}, p_{k,i}); made anew after each experience
    answer          argmax of cos(f_i, p_{c,i}) + alpha / t * sum over j != i of cos(f_j, p_{c,j})
                    + beta cos(f, p_c), f and p_c of the plain network, where beta is above 0

`cl_adapters/heads/subspaces.py` keeps and maps the means. After experience t an image is passed
t + 1 times, once more with beta; with a cache, once under each set in the whole stream.

Differs from the authors' code, unless `fidelity="official"`:
    `peft_scale=1.0`      their adapter's output counts 0.1, and learns little in few steps
Not published:
    `start, set_storage`  sets that begin at earlier ones; sets kept at one bit a number
    `mapped=false`        the mean of cos(f_j, p_{c,j}) over j <= i, no mapped means
Without an option:
    `scale`               of the reported confidence; theirs reports none; the answer is the same
    one class             an experience of one class trains nothing, where theirs decays weights
    classes that return   belong to their last experience; theirs has no such stream
Not built in: mapping without `recalc_sim`, which no config has; `moni_adam`, which is APER.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from cl_adapters.heads.linear import cross_entropy_over
from cl_adapters.heads.subspaces import SubspacePrototypes
from cl_adapters.strategies.core.config import AdapterSGDConfig, StoredSetsConfig
from cl_adapters.strategies.core.features import AdapterFeatureExtractor
from cl_adapters.strategies.core.renewed_head import RenewedHeadModel, RenewedSetStrategy
from cl_adapters.strategies.core.starting import separation, stored_start
from cl_adapters.strategies.core.strategy import Phase
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.by_set import FeaturesUnder, features_by_set, features_of_all_sets

__all__ = ["EASE", "EASEConfig", "EASEModel"]


class EASEConfig(AdapterSGDConfig, StoredSetsConfig):
    """Options of EASE."""

    lr: float = Field(default=0.025, gt=0, description="of SGD, cosine to 0")
    alpha: float = Field(default=0.1, ge=0, description="weight of the other spaces together")
    beta: float = Field(
        default=0.0, ge=0, description="weight of the plain network's space; 0: none"
    )
    reweight: bool = Field(default=True, description="else one cosine over all spaces joined")
    mapped: bool = Field(
        default=True, description="else the mean cosine over spaces with a real mean of the class"
    )
    scale: float = Field(default=10.0, gt=0, description="of the reported confidence")
    start: Literal["fresh", "last", "mean", "knn"] = Field(
        default="fresh", description="of a new set: fresh, last, mean of the stored, or the knn one"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.mapped or self.reweight):
            raise ValueError("`mapped` must be true where `reweight` is false, got false")
        self.refuse_beside_parallel({"beta": 0.0})  # a new one stands for the plain network
        return self

    @property
    def evaluation_options(self) -> frozenset[str]:
        """What only answers ask for."""
        return frozenset(("alpha", "reweight", "mapped", "scale"))


class EASEModel(RenewedHeadModel):
    """The backbone, the set in training and its head, the frozen sets, and means under these."""

    def __init__(self, backbone: AdaptedViT, config: EASEConfig, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.current_adapters = config.build_stack(backbone, seed)
        self.frozen_adapters = config.build_bank(self.current_adapters)
        self.renew_head([], torch.Generator())
        self.prototypes = SubspacePrototypes(
            backbone.embed_dim, config.alpha, config.beta or None, config.scale, config.reweight,
            mapped=config.mapped,
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, C) of images (B, 3, S, S): of the head in training, else scores."""
        if self.training or self.prototypes.num_spaces == 0:
            found = self.backbone(images, self.current_adapters.adapters())
            return self.training_logits(found, len(self.prototypes))
        rows = torch.arange(len(images), device=images.device)
        return self.answer(rows, features_by_set(self.backbone, self.frozen_adapters, images))

    def answer(self, images: Tensor, features_under: FeaturesUnder) -> Tensor:
        """Returns the scores of all classes, (B, C), for what `features_under` calls images."""
        found = features_of_all_sets(images, len(self.frozen_adapters), features_under)
        return self.prototypes.scores(found)


class EASE(RenewedSetStrategy):
    """Trains one PEFT set an experience and keeps class means under each of them."""

    config_class = EASEConfig
    config: EASEConfig
    model: EASEModel
    pieces = ("prototypes", "sets")

    @torch.no_grad()
    def begin_experience(self) -> None:
        """Draws a fresh set, or begins it at earlier ones; all but it and its head is frozen."""
        adapters, frozen = self.model.current_adapters, self.model.frozen_adapters
        seed = self.generator("adapters").initial_seed()
        adapters.load(self._begun() or self.config.build_stack(self.backbone, seed).tensors())
        if self.config.beta and len(frozen) == 0:
            frozen.append(adapters.tensors())  # adds nothing yet: it stands for the plain network
        adapters.noise = self.generator("dropout", self.device)
        self.learns_by_gradient = len(self.current_classes) > 1

    def _begun(self) -> Sequence[Tensor] | None:
        """Returns what the set begins with; None where it is drawn anew."""
        frozen, start = self.model.frozen_adapters, self.config.start
        sets = range(int(self.config.beta > 0), len(frozen))  # without the plain network's
        if sets and start == "last":
            return self.model.current_adapters.tensors()
        is_drawn = not sets or start == "fresh"
        return None if is_drawn else stored_start(start, frozen, sets, self._separates)

    def _separates(self, stored: int) -> tuple[float, int]:
        adapters = self.model.frozen_adapters.choose(stored)
        with self.events.timed("start", len(self.experience.dataset)):
            return separation(self.plain_images(), self.features.under(adapters))

    def phases(self) -> Iterator[Phase]:
        """Yields the training of the set, unless there is nothing to tell apart."""
        if self.learns_by_gradient:
            yield Phase("train", self.config.epochs)

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the current classes."""
        return cross_entropy_over(self.current_classes, logits, targets)

    @torch.no_grad()
    def end_experience(self) -> None:
        """Freezes the set and adds the experience to the means under every set so far."""
        frozen = self.model.frozen_adapters
        frozen.append(self.model.current_adapters.tensors())
        passes = len(frozen) * len(self.experience.dataset)
        with self.events.timed("prototypes", passes), self.features.autocast():
            for images, labels in self.plain_images():
                for number in range(len(frozen)):
                    found = self.backbone(images, frozen.choose(number))
                    self.model.prototypes.add(number, found, labels)

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: EASEConfig, seed: int) -> EASEModel:
        """Returns the backbone with one set that has learned nothing yet."""
        return EASEModel(backbone, config, seed)

    def rebuild(self, state: Mapping[str, Tensor]) -> None:
        """Makes room for the means of a checkpoint."""
        spaces = state.get("prototypes.counts", torch.zeros(0, 0)).shape[-1]
        self.model.prototypes.add_spaces(spaces)

    def frozen_adapter_features(self) -> AdapterFeatureExtractor | None:
        """Returns the features under each frozen set."""
        is_empty = self.model.prototypes.num_spaces == 0
        extractor = self.features.adapter_feature_extractor
        return None if is_empty else extractor(self.model.frozen_adapters)
