"""What a method answers, in the order of an experience: the page to write one by.

Subclass `AdapterStrategy` of `core/strategy.py` (`Output`, `Phase` are there too). `build_model`
must be answered. Heads and losses lie in `cl_adapters/heads`, options in `core/config.py`. Of use:

    self.config, self.seed, self.device, self.model, self.current_classes, self.classes_seen
    self.backbone(images, adapters)   features (B, D); in parts: tokens, run, normed, features
    AdapterSet({("mlp", 3): module})  what goes into block 3; slots: `peft/adapter_set.py`
    self.generator("noise")           randomness of one purpose in this experience
    self.output                       of the last forward pass: logits, extras; None before
    self.plain_images()               (images, labels) of the experience, not augmented
    self.features.feature_extractor(self.backbone, self.backbone)   what computes; all it holds
    self.log_event("growth", block=3), self.events.timed("statistics", images)
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cl_adapters.strategies.core.avalanche_types import AvalancheDataset
from cl_adapters.strategies.core.config import StrategyConfig
from cl_adapters.strategies.core.extractors import AdapterFeatureExtractor, FeatureExtractor
from cl_adapters.strategies.core.output import Output, Phase
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["Method", "Output", "Phase"]


class Method(ABC):
    """The questions. The model gives logits, (B, C) or an `Output`, for the loss or the answer."""

    config: StrategyConfig
    config_class: ClassVar[type[StrategyConfig]] = StrategyConfig
    learns_by_gradient: bool = True  # else batches go to `accumulate`
    trains_on_features: ClassVar[bool] = False  # needs of an image but its frozen features
    trains_on_all_data: ClassVar[bool] = False  # the images of all experiences so far
    role: ClassVar[str] = "method"  # or lower_bound, baseline, upper_bound: how reports show it
    current_classes: tuple[int, ...]
    classes_seen: list[int]

    @classmethod
    @abstractmethod
    def build_model(cls, backbone: AdaptedViT, config: Any, seed: int) -> nn.Module:  # noqa: ANN401
        """Returns the model: the backbone as `backbone`, beside it everything that is learned."""

    def check_experience(self, dataset: AvalancheDataset) -> None:
        """Raises `InputError` if the method cannot learn from an experience."""

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Makes room, in the head above all, for classes of which some may have been seen."""

    def begin_experience(self) -> None:
        """Copies, freezes or resets; what requires a gradient afterwards is trained."""

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns the optimiser of an experience: Adam at `config.lr`."""
        return torch.optim.Adam(parameters, lr=getattr(self.config, "lr", 0.0), fused=True)

    def phases(self) -> Iterator[Phase]:
        """Yields what is trained, one after the other; what stands between yields runs between."""
        yield Phase("train", getattr(self.config, "epochs", 1))

    def begin_epoch(self, epoch: int) -> None:
        """Prepares an epoch, counted from 0 in each phase: learning rates, what is frozen."""

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the training loss, a scalar, of logits (B, C) and targets (B,)."""
        return nn.functional.cross_entropy(logits, targets)

    def before_step(self) -> None:
        """Comes between gradients and the optimiser's step: clipping."""

    def after_step(self) -> None:
        """Follows each optimiser step: averages, merging."""

    def accumulate(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Takes in a batch without gradients; returns its logits (B, C)."""
        raise NotImplementedError

    def end_experience(self) -> None:
        """Follows the last epoch, before any evaluation: statistics, merging, closed forms."""

    def frozen_features(self) -> FeatureExtractor | None:
        """Returns what is frozen, from images on: evaluation then gives the model its features."""

    def frozen_adapter_features(self) -> AdapterFeatureExtractor | None:
        """Returns frozen features under one of several sets; `model.answer` then asks for them."""

    def query_features(self) -> FeatureExtractor | None:
        """Returns frozen features; the model is then called as `model(images, query)`."""

    def generators(self) -> Mapping[str, torch.Generator]:
        """Returns, by name, what steps draw from beside the order of images and torch's source."""
        return {}

    def rebuild(self, state: Mapping[str, Tensor]) -> None:
        """Grows what a checkpoint holds beyond what `add_classes` grew."""
