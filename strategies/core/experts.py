"""Experts that are asked together, of one regime or of several: LAE's vote."""

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.strategies.core.extractors import FeatureExtractor
from cl_adapters.strategies.core.growing import GrowingStrategy
from cl_adapters.strategies.core.grown_sets import GrownSets
from cl_adapters.strategies.core.regimes import Regimes
from cl_adapters.strategies.core.starting import mean_state, separation, stored_choice
from cl_adapters.strategies.core.strategy import Output
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["ExpertsModel", "ExpertsStrategy", "RegimeExperts", "ensemble"]


def ensemble(online: Tensor, offline: Tensor) -> Tensor:
    """Returns the log of the normalised element-wise maximum of two softmaxes.

    Shape:
        online, offline: (B, C) logits. Output: (B, C).

    Example:
        >>> even, sure = torch.zeros(1, 2), torch.tensor([[0.0, 100.0]])
        >>> [round(value, 3) for value in ensemble(even, sure).exp()[0].tolist()]
        [0.333, 0.667]
    """
    scores = torch.maximum(online.softmax(dim=1), offline.softmax(dim=1))
    return (
        (scores / scores.sum(dim=1, keepdim=True)).clamp_min(torch.finfo(scores.dtype).tiny).log()
    )


class RegimeExperts(nn.ModuleList):
    """The online and the offline modules of each regime, as its last experience left them."""

    def keep(self, regime: int, online: AdapterSet, offline: AdapterSet) -> None:
        """Keeps copies for a regime, in place of earlier ones."""
        pair = nn.ModuleList([copy.deepcopy(online), copy.deepcopy(offline)])
        pair.requires_grad_(requires_grad=False)
        if regime == len(self):
            self.append(pair)
        else:
            self[regime] = pair

    def load(self, regime: int, online: AdapterSet, offline: AdapterSet) -> None:
        """Puts two sets back to where a regime left them."""
        for live, kept in zip((online, offline), self.of(regime), strict=True):
            live.load_state_dict(kept.state_dict())

    def of(self, regime: int) -> tuple[AdapterSet, AdapterSet]:
        """Returns the online and the offline modules of a regime."""
        online, offline = cast(
            "tuple[AdapterSet, AdapterSet]", tuple(cast("nn.ModuleList", self[regime]))
        )
        return online, offline


class ExpertsModel(GrownSets):
    """A model with two experts in training, and those of the regimes that are not trained now.

    Attributes:
        compares: Whether training looks at features of the offline modules too.
    """

    backbone: AdaptedViT
    heads: ExperienceHeads
    online: AdapterSet
    offline: AdapterSet

    def __init__(self) -> None:
        super().__init__()
        self.experts = RegimeExperts()
        self.compares = False

    def compared(self, images: Tensor, features: Tensor, logits: Tensor) -> Output:
        """Returns logits of online features; where training compares, with the offline ones.

        Shape:
            images: (B, 3, S, S). features: (B, D). logits: (B, C).
        """
        if not (self.training and self.compares):
            return Output(logits)
        with torch.no_grad():
            earlier = self.backbone.features_of(images, (self.offline,))
        return Output(logits, {"features": features, "earlier": earlier})

    def voted(self, online: Tensor, offline: Tensor) -> Output:
        """Returns the vote of two experts, of logits (B, C) each, and the class that each chose."""
        votes = online.argmax(dim=1), offline.argmax(dim=1)
        return Output(ensemble(online, offline), {"votes": votes})

    def by_regime(self, images: Tensor, regimes: Tensor) -> Output:
        """Returns the vote of the experts of each image's regime.

        Shape:
            images: (B, 3, S, S). regimes: (B,). Output: (B, C).
        """
        order, parts = [], []
        regimes = self.standing_in(regimes)
        for regime in torch.unique(regimes).tolist():
            order.append((regimes == regime).nonzero()[:, 0])
            experts = self.experts_of(regime)
            found = self.heads(self.backbone.features_of(images[order[-1]], experts)).float()
            parts.append((found[: len(order[-1])], found[-len(order[-1]) :]))
        back = torch.cat(order).argsort()
        return self.voted(*(torch.cat(each)[back] for each in zip(*parts, strict=True)))

    def experts_of(self, regime: int) -> tuple[AdapterSet, ...]:
        """Returns who votes on images of a regime: the online modules, from its second on both."""
        if self.regimes is None or regime == self.regimes.active:
            pair = self.online, self.offline
        else:
            pair = self.experts.of(regime)
        return pair[: 1 if self.regimes and self.regimes.experiences_in(regime) == 1 else 2]


class ExpertsStrategy(GrowingStrategy):
    """Trains the experts of one regime at a time; images find theirs by frozen features."""

    config: Any  # with the options of `PeftConfig` and `SetStartConfig`
    model: ExpertsModel

    def find_experts(self) -> None:
        """Finds the regime of the experience; its experts go on where it left them, or begin."""
        regimes, model = self.find_regime(), self.model
        if regimes is not None and not regimes.is_new:
            model.experts.load(regimes.active, model.online, model.offline)
        elif len(model.experts):
            begun = self._begun(regimes)
            model.online.load_state_dict(begun or model.online.state_dict())

    def _begun(self, regimes: Regimes | None) -> Mapping[str, Tensor] | None:
        """Returns what the online modules of a new regime begin with; None where they stand."""
        experts, start = self.model.experts, self.config.start
        if start == "fresh":
            seed = self.seed * 1_000_003 + len(self.classes_by_experience)
            found: AdapterSet = self.config.build_adapters(self.backbone, seed=seed)
            return found.state_dict()
        states = [experts.of(each)[0].state_dict() for each in range(len(experts))]
        if start == "mean":
            return mean_state(states)
        nearest = None if regimes is None else lambda: regimes.nearest
        chosen = stored_choice(start, range(len(states)), self._separates, nearest)
        return None if chosen is None else states[chosen]

    def _separates(self, regime: int) -> tuple[float, int]:
        online, _ = self.model.experts.of(regime)
        with self.events.timed("start", len(self.experience.dataset)):
            return separation(self.plain_images(), self.features.under(online))

    @property
    def met(self) -> int:
        """Experiences that the experts in training have met, the current one counted."""
        regimes = self.model.regimes
        return len(self.classes_by_experience) if regimes is None else regimes.experiences

    def end_experience(self) -> None:
        """Keeps the experts of the regime, where there are several."""
        model = self.model
        if model.regimes is not None:
            model.experts.keep(model.regimes.active, model.online, model.offline)

    def rebuild(self, state: Mapping[str, Tensor]) -> None:
        """Makes room for the regimes that a checkpoint holds, and their experts."""
        super().rebuild(state)
        for regime in range(0 if self.model.regimes is None else self.model.regimes.held(state)):
            self.model.experts.keep(regime, self.model.online, self.model.offline)

    def query_features(self) -> FeatureExtractor | None:
        """Returns the frozen network, which says to whose experts an image goes."""
        regimes, model = self.model.regimes, self.model
        if regimes is None or model.training or regimes.count <= 1:
            return None
        return self.features.feature_extractor(self.backbone, self.backbone)
