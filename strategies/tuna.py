"""TUNA: an adapter set for each experience, and a universal one that is merged out of all.

One PEFT set learns on through the stream; a copy is kept after each experience. All heads are
aligned on Gaussians of the classes. An image is answered by the set that is surest of its answer
and by the universal set, which has the strongest entries of all.

Reference: Yan Wang, Da-Wei Zhou, Han-Jia Ye, "Integrating Task-Specific and Universal Adapters for
Pre-Trained Model-based Class-Incremental Learning", ICCV 2025, arXiv:2508.08165.

With A the set in training (carried over, never reset), A_0 ... A_{t-1} the stored ones, z_i(x) the
logits of all heads under set i, U the up-projection of a block with rows of length 1:

    training       cross-entropy of 20 (cos - m at the target) over the current classes
                   + rho exp(-(t + 1)) * sum over i < t of the mean over blocks of
                   |mean entry of U U_i'|, which is |mean row of U . mean row of U_i|
    statistics     mean and covariance of the features under A_t, for each class of experience t
    alignment      from experience 1 on all heads, on samples; the rate rises again after 5 rounds
    universal set  entry by entry: the sign of the mean over A_0 ... A_t, and the largest magnitude
                   among the sets that have this sign
    answer         experience 0: z_0. Later i = argmin over sets of the entropy of softmax(z_i),
                   score = softmax(z_i) + softmax(z_universal): t + 2 passes

Differs from the authors' code, unless `fidelity="official"`:
    `second="universal"`     theirs never reaches the universal set: its number selects the set in
                             training, which is the last one ("last", t + 1 passes)
    `detach_stored=True`     theirs leaves the stored up-projections to the optimiser, so that the
                             orthogonality term and weight decay move sets that are done
    `head_freeze=True`       theirs lets weight decay shorten old heads, which alignment turns more
    `peft_scale=1.0`, `epochs`, `batch_size`   a set that learns enough in the few steps of a small
                             stream (theirs for CIFAR-100: 0.1, 15, 16)
    `statistics="low_rank"`  128 directions and a diagonal; theirs keeps D x D numbers a class
Not published: `set_storage="one_bit"`, all stored sets at one bit a number.
For ImageNet-R theirs sets `orthogonality=0.001`, `epochs=10`, `lr=0.02`, `batch_size=32` and
`mean_scaling="tuna"`, which divides by a negative number: newer classes get the smaller means
("slca": what it means to do); for ImageNet-A `margin=0.3`.
"""

import math
from typing import ClassVar, Final, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from cl_adapters.peft.merging import orthogonality_term, universal_set
from cl_adapters.strategies.core.aligned import (
    AlignedPeftConfig,
    AlignedPeftModel,
    AlignedPeftStrategy,
)
from cl_adapters.strategies.core.config import StoredSetsConfig
from cl_adapters.strategies.core.features import AdapterFeatureExtractor
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.by_set import FeaturesUnder, features_by_set, features_of_all_sets

__all__ = ["TUNA", "TUNAConfig", "TUNAModel"]

_UP: Final = 2  # among the tensors of a bottleneck


class TUNAConfig(AlignedPeftConfig, StoredSetsConfig):
    """Options of TUNA."""

    parallel_size: ClassVar[int] = 16

    size: int | None = Field(
        default=None, ge=1, description="width, rank or length; None: its own, 16 of parallel"
    )
    orthogonality: float = Field(default=0.0, ge=0, description="rho, keeps sets apart; 0: no term")
    detach_stored: bool = Field(default=True, description="that term leaves stored sets alone")
    second: Literal["universal", "last"] = Field(
        default="universal", description="what answers beside the surest set"
    )
    alignment_period: int | None = Field(
        default=5, ge=1, description="rounds until the rate is 0, then it rises; None: all rounds"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.refuse_beside_bits({"detach_stored": False})
        self.refuse_beside_parallel({"orthogonality": 0.0})
        return self

    @classmethod
    def official(cls) -> Self:
        """Returns the authors' settings for CIFAR-100."""
        trained = {"batch_size": 16, "epochs": 15, "peft_scale": 0.1, "statistics": "full"}
        published = {"second": "last", "detach_stored": False, "head_freeze": False}
        return cls().override({**trained, **published})


class TUNAModel(AlignedPeftModel):
    """The backbone, the set in training, the stored ones, heads, and what is kept of each class."""

    def __init__(self, backbone: AdaptedViT, config: TUNAConfig, seed: int) -> None:
        super().__init__(backbone, config, seed)
        self.is_merged = config.second == "universal"
        self.frozen_adapters = config.build_bank(self.current_adapters)  # the universal one last
        # A copy of the stored up-projections while the optimiser moves them; empty between.
        self.moved = None if config.detach_stored else nn.Parameter(torch.zeros(0))

    @property
    def num_sets(self) -> int:
        """Number of experiences that have left a set."""
        count = len(self.frozen_adapters)
        return count - int(self.is_merged and count > 1)

    def stored_up(self) -> Tensor:
        """Returns the up-projections of the stored sets, (T, L, D, R), while others learn."""
        if self.moved is not None and self.moved.numel() > 0:
            return self.moved
        return self.frozen_adapters.tensors()[_UP][: self.num_sets]

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, C) of images (B, 3, S, S), the log of the score in eval mode."""
        if self.training or self.num_sets == 0:
            return super().forward(images)
        rows = torch.arange(len(images), device=images.device)
        return self.answer(rows, features_by_set(self.backbone, self.frozen_adapters, images))

    def answer(self, images: Tensor, features_under: FeaturesUnder) -> Tensor:
        """Returns what all sets answer together, (B, C), of what `features_under` calls images."""
        found = features_of_all_sets(images, len(self.frozen_adapters), features_under)
        return self.score(self.heads(found.flatten(0, 1)).unflatten(0, found.shape[:2]))

    def score(self, logits: Tensor) -> Tensor:
        """Returns the log of the score, or the logits of the only set.

        Shape:
            logits: under each set, (B, T, C), the universal one last. Output: (B, C).
        """
        if self.num_sets == 1:
            return logits[:, 0]
        answers = logits.float().softmax(dim=2)
        entropy = torch.special.entr(answers[:, : self.num_sets]).sum(dim=2)
        surest = entropy.argmin(dim=1)[:, None, None].expand(-1, 1, answers.shape[2])
        score = (answers.gather(1, surest)[:, 0] + answers[:, -1]) / 2
        return score.clamp_min(torch.finfo(score.dtype).tiny).log()


class TUNA(AlignedPeftStrategy):
    """Keeps one adapter set an experience and asks the surest, beside one merged out of all."""

    config_class = TUNAConfig
    config: TUNAConfig
    model: TUNAModel
    pieces = ("heads", "sets", "statistics")

    def begin_experience(self) -> None:
        """Lets the set learn on with the new head, and stored ones where options say so."""
        super().begin_experience()
        model, moved = self.model, self.model.moved
        self.is_kept_apart = self.config.orthogonality > 0 and model.num_sets > 0
        if moved is not None and self.is_kept_apart:
            moved.data, moved.requires_grad = model.stored_up().clone(), True

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the current classes, and what keeps sets apart."""
        loss = super().batch_loss(logits, targets)
        if not self.is_kept_apart:
            return loss
        share = self.config.orthogonality * math.exp(-len(self.classes_by_experience))
        own = self.model.current_adapters.tensors()[_UP]
        return loss + share * orthogonality_term(own, self.model.stored_up())

    def end_experience(self) -> None:
        """Stores the set and merges all; keeps statistics of the new classes, aligns all heads."""
        self._store()
        features, labels = self.plain_features()
        self.keep_statistics(features, labels)
        self.align_heads()

    @torch.no_grad()
    def _store(self) -> None:
        model, bank = self.model, self.model.frozen_adapters
        bank.cut(model.num_sets)  # the universal set is made anew
        if model.moved is not None and self.is_kept_apart:
            bank.up = model.moved.detach().clone()
            model.moved.data, model.moved.grad = bank.up[:0].flatten(), None
        bank.append(model.current_adapters.tensors())
        if model.is_merged and len(bank) > 1:
            bank.append(universal_set(bank.tensors()))

    def current_features(self, images: Tensor) -> Tensor:
        """Returns features (B, D) of images (B, 3, S, S): of the newest set as it answers."""
        model = self.model
        if self.config.set_storage == "float":
            return super().current_features(images)
        return self.features.under(model.frozen_adapters.choose(model.num_sets - 1))(images)

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: TUNAConfig, seed: int) -> TUNAModel:
        """Returns the backbone with one adapter set that has learned nothing yet."""
        return TUNAModel(backbone, config, seed)

    def frozen_adapter_features(self) -> AdapterFeatureExtractor | None:
        """Returns the features under each stored set and the universal one."""
        bank, count = self.model.frozen_adapters, self.model.num_sets
        settled = count if self.model.moved is None else 0
        return self.features.adapter_feature_extractor(bank, settled=settled) if count else None
