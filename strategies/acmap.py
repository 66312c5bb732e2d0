"""ACMap: one adapter set, the running mean of those of all experiences.

Each experience trains a PEFT set that starts from that of the first one, so that their mean makes
sense. Class means are measured under the merged set of their time, and mapped to the present one by
how far the images at hand have moved on average. One set answers, however many were trained.

Reference: Takuma Fukuda, Hiroshi Kera, Kazuhiko Kawamoto, "Adapter Merging with Centroid Prototype
Mapping for Scalable Class-Incremental Learning", CVPR 2025, arXiv:2412.18219.

With A_t the set that experience t trains, M_t the merged one, g_t the features under M_t, X_t the
images of experience t, not augmented:

    training       A_0 from a fresh set, each A_t from A_0 as it was trained, with a cosine head of
                   learned scale, by cross-entropy over the classes of t; the head is thrown away
    merging        M_t = (t M_{t-1} + A_t) / (t + 1), M_0 = A_0
    class means    p_c = mean of g_t over the images of c, for the classes of t
    mapping        for classes of experience i < t: p_c + mean of g_t(X_t) - mean of g_i(X_t),
                   anew after each experience from p_c as it was measured
    answer         argmax of cos(g_t(x), p_c), mapped: one pass

After `limit` merges nothing is trained, merged or mapped any more: later classes are measured under
the last merged set. All merged sets are kept, which is what `limit` bounds; an experience costs a
pass over its images under each of them.

Differs from the authors' code, unless `fidelity="official"`:
    `peft_scale=1.0`      their adapter's output counts 0.1, and learns little in few steps
Without an option:
    after `limit`         theirs goes on training sets that are then not merged
    `scale`               of the reported confidence; theirs reports none; the answer is the same
    one class             an experience of one class trains nothing, where theirs decays weights
    classes that return   their mean is mapped to the present, then new images are added to it
"""

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor

from cl_adapters.heads.drift import centroid_shift
from cl_adapters.heads.linear import cross_entropy_over
from cl_adapters.heads.mapped import MappedPrototypes
from cl_adapters.peft.bank import AdapterBank
from cl_adapters.peft.merging import merge_
from cl_adapters.strategies.core.config import AdapterSGDConfig
from cl_adapters.strategies.core.features import FeatureExtractor
from cl_adapters.strategies.core.renewed_head import RenewedHeadModel, RenewedSetStrategy
from cl_adapters.strategies.core.statistics import collect_features
from cl_adapters.strategies.core.strategy import Phase
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["ACMap", "ACMapConfig", "ACMapModel"]


class ACMapConfig(AdapterSGDConfig):
    """Options of ACMap."""

    lr: float = Field(default=0.025, gt=0, description="of SGD, cosine to 0")
    limit: int = Field(default=10, ge=1, description="sets that are merged, the first counted")
    scale: float = Field(default=10.0, gt=0, description="of the reported confidence")


class ACMapModel(RenewedHeadModel):
    """The backbone, the set in training and its head, the merged sets, and class means."""

    def __init__(self, backbone: AdaptedViT, config: ACMapConfig, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.current_adapters = config.build_stack(backbone, seed)
        self.merged_adapters = AdapterBank(self.current_adapters)  # M_0 ... M_t; M_0 is A_0
        self.prototypes = MappedPrototypes(backbone.embed_dim, scale=config.scale)
        self.renew_head([], torch.Generator())

    def features(self, inputs: Tensor) -> Tensor:
        """Returns the features under the merged set of today.

        Shape:
            inputs: images (B, 3, S, S), or features, which are given back. Output: (B, D).
        """
        if inputs.ndim == 2:
            return inputs
        adapters = self.merged_adapters.choose(len(self.merged_adapters) - 1)
        found: Tensor = self.backbone(inputs, adapters)
        return found

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns logits: of the head in training, else cosines to class means.

        Shape:
            inputs: images (B, 3, S, S) or features (B, D). Output: (B, C).
        """
        if not self.training and len(self.merged_adapters) > 0:
            scores: Tensor = self.prototypes(self.features(inputs))
            return scores
        found = self.backbone(inputs, self.current_adapters.adapters())
        return self.training_logits(found, len(self.prototypes.measured_under))


class ACMap(RenewedSetStrategy):
    """Merges the sets of all experiences into one and maps class means along."""

    config_class = ACMapConfig
    config: ACMapConfig
    model: ACMapModel
    pieces = ("prototypes", "sets")

    @torch.no_grad()
    def begin_experience(self) -> None:
        """Starts from the set of the first experience, as it was trained."""
        adapters, merged = self.model.current_adapters, self.model.merged_adapters
        if len(merged) > 0:
            for value, first in zip(adapters.tensors(), merged.at(0), strict=True):
                value.copy_(first)
        adapters.noise = self.generator("dropout", self.device)
        self.learns_by_gradient = len(self.current_classes) > 1 and not self._is_full

    @property
    def _is_full(self) -> bool:
        return len(self.model.merged_adapters) >= self.config.limit

    def phases(self) -> Iterator[Phase]:
        """Yields the training of the set, unless there is nothing to tell apart or to merge."""
        if self.learns_by_gradient:
            yield Phase("train", self.config.epochs)

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the current classes."""
        return cross_entropy_over(self.current_classes, logits, targets)

    @torch.no_grad()
    def end_experience(self) -> None:
        """Merges the set, maps old means to the merged one and measures those of the experience."""
        model, merged = self.model, self.model.merged_adapters
        moves = not self._is_full
        if moves:
            self._merge()
        newest = len(merged) - 1
        with self.events.timed("prototypes", (moves * newest + 1) * len(self.experience.dataset)):
            now, labels = self._plain_features(newest)
            if moves:
                before = [self._plain_features(each)[0] for each in range(newest)]
                shifts = [centroid_shift(each, now) for each in before]
                model.prototypes.move_to(torch.stack([*shifts, torch.zeros_like(now[0])]))
        model.prototypes.add(now, labels, newest)

    def _merge(self) -> None:
        merged, tensors = self.model.merged_adapters, self.model.current_adapters.tensors()
        mean = [value.clone() for value in (merged.at(-1) if len(merged) else tensors)]
        merge_(mean, tensors, 1 / (len(merged) + 1))
        merged.append(mean)

    def _plain_features(self, number: int) -> tuple[Tensor, Tensor]:
        """Returns features (n, D) of the images under a merged set, and labels (n,)."""
        adapters = self.model.merged_adapters.choose(number)

        def compute(images: Tensor) -> Tensor:
            with self.features.autocast():
                found: Tensor = self.backbone(images, adapters)
            return found.float()

        return collect_features(self.plain_images(), compute)

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: ACMapConfig, seed: int) -> ACMapModel:
        """Returns the backbone with one set that has learned nothing yet."""
        return ACMapModel(backbone, config, seed)

    def frozen_features(self) -> FeatureExtractor | None:
        """Returns the network under the merged set of today."""
        merged = self.model.merged_adapters
        if len(merged) == 0:
            return None
        return self.features.feature_extractor(self.model.features, self.backbone, merged)
