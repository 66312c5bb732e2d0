"""First-session adaptation: a network that is fitted to the first experience alone, then frozen.

What is trained is a PEFT module in every block (`variant` adapter, the published default), a gain
and a shift behind every layer (ssf), learned tokens before the first block or before each
(vpt_shallow, vpt_deep), or a copy of all weights (finetune). It is trained with a cosine head of
learned scale and plain cross-entropy, by SGD with momentum 0.9 along a cosine; the head is not used
afterwards. What follows (prototypes, regressions, Gaussians) then works on features that fit the
data and never change again.

    FirstSessionConfig     what is trained and how, or `first_session=False`: nothing
    FirstSession           what is trained, and the head that it is trained with
    FirstSessionModel      backbone, first session if any, and a classifier in closed form
    FirstSessionStrategy   what a method with such a model subclasses: it says how the classifier
                           is set, in `end_experience`, and nothing of the training

A first experience of one class has nothing to tell apart: it trains nothing, and features stay
those of the backbone; or it is refused, with `one_class="refuse"`.

References: Mark D. McDonnell et al., "RanPAC: Random Projections and Pre-trained Models for
Continual Learning", NeurIPS 2023, arXiv:2307.02251, phase 1. Da-Wei Zhou et al., "Revisiting
Class-Incremental Learning with Pre-Trained Models", IJCV 2024, arXiv:2303.07338.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.heads.registry import build_trained_head
from cl_adapters.peft.stack import AdapterStack
from cl_adapters.peft.tokens import VPT_DEEP, VPT_SHALLOW
from cl_adapters.strategies.core.avalanche_types import AvalancheDataset
from cl_adapters.strategies.core.config import AdapterSGDConfig
from cl_adapters.strategies.core.features import FeatureExtractor
from cl_adapters.strategies.core.labels import classes_of
from cl_adapters.strategies.core.optimizers import set_cosine_rates, sgd
from cl_adapters.strategies.core.strategy import AdapterStrategy, Phase
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.reweighted import OwnWeights, Reweighted, ScaleShift

__all__ = ["FirstSession", "FirstSessionConfig", "FirstSessionModel", "FirstSessionStrategy"]

_LEAST: Final = 2  # classes that a head can be trained to tell apart
Variant = Literal["adapter", "ssf", "vpt_shallow", "vpt_deep", "finetune"]


class FirstSessionConfig(AdapterSGDConfig):
    """Options of the first session; the defaults are the published ones but for `peft_scale`."""

    first_session: bool = Field(default=True, description="adapt the network to experience 0")
    variant: Variant = Field(
        default="adapter",
        description="what that trains: adapter (the module `peft`), ssf, vpt_shallow, vpt_deep "
        "or finetune",
    )
    one_class: Literal["skip", "refuse"] = Field(
        default="skip",
        description="what becomes of a first experience of one class: it trains nothing, or is "
        "refused",
    )

    @model_validator(mode="after")
    def _check_peft(self) -> Self:
        is_adapter = self.variant == "adapter"
        if not is_adapter and self.peft != "parallel":
            raise ValueError(
                f"`peft` must stay at parallel with variant {self.variant!r}, got {self.peft!r}"
            )
        if self.variant in {"ssf", "finetune"} and self.size is not None:
            raise ValueError(
                f"`size` must be left out with variant {self.variant!r}, which has none, "
                f"got {self.size}"
            )
        return self

    def build_adaptation(self, backbone: AdaptedViT, seed: int) -> AdapterStack | Reweighted:
        """Returns what the first session trains."""
        generator = torch.Generator().manual_seed(seed)
        if self.variant == "finetune":
            return OwnWeights(backbone)
        if self.variant == "ssf":
            return ScaleShift(backbone, generator)
        if self.variant == "adapter":
            return self.build_stack(backbone, seed, begins_once=True)
        is_deep = self.variant == "vpt_deep"
        return AdapterStack.build(
            VPT_DEEP if is_deep else VPT_SHALLOW,
            embed_dim=backbone.embed_dim,
            blocks=backbone.num_blocks if is_deep else 1,
            size=self.size,
            generator=generator,
        )


class FirstSession(nn.Module):
    """What adapts the network, and the head that it is trained with.

    Args:
        backbone: The frozen ViT.
        config: What adapts it, and how that is trained.
        seed: Of the initial weights.

    Attributes:
        is_over: Whether all of it is as it will stay; part of the state.
        is_skipped: Whether there was nothing to train: features are then the backbone's.
    """

    def __init__(self, backbone: AdaptedViT, config: FirstSessionConfig, seed: int) -> None:
        super().__init__()
        self.adapters = config.build_adaptation(backbone, seed)
        self.head = build_trained_head(
            "cosine", backbone.embed_dim, init_std=None, scale=1.0, learn_scale=True
        )
        self.register_buffer("is_over", torch.tensor(data=False))
        self.register_buffer("is_skipped", torch.tensor(data=False))
        self.is_over: Tensor | bool
        self.is_skipped: Tensor | bool
        self.merged: AdaptedViT | None = None  # where weights are no longer kept apart

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Gives the head the classes of the first experience; later ones never reach it."""
        if not self.head.classes:
            self.head.add_classes(classes, generator)

    def is_due(self, experiences: Sequence[object]) -> bool:
        """Says whether there is something to train: a first experience of several classes.

        Args:
            experiences: Those that have begun, the current one last.
        """
        return len(experiences) == 1 and len(self.head.classes) >= _LEAST

    def phases(self, experiences: Sequence[object], config: FirstSessionConfig) -> Iterator[Phase]:
        """Yields the training of the first experience; freezes everything after it.

        Args:
            experiences: Those that have begun, the current one last.
            config: How many epochs.
        """
        if self.is_due(experiences):
            yield Phase("first session", config.epochs)
        elif len(experiences) == 1:
            cast("Tensor", self.is_skipped).fill_(value=True)
        cast("Tensor", self.is_over).fill_(value=True)
        self.requires_grad_(requires_grad=False)
        self.eval()

    def optimizer(self, config: FirstSessionConfig) -> torch.optim.Optimizer:
        """Returns SGD over the PEFT modules and the head."""
        return sgd(list(self.parameters()), config.lr, config.weight_decay)

    def features(self, backbone: AdaptedViT, images: Tensor) -> Tensor:
        """Returns the adapted features.

        Shape:
            images: (B, 3, S, S). Output: (B, D).
        """
        if self.merged is not None:
            merged: Tensor = self.merged(images)
            return merged
        if self.is_skipped:
            bare: Tensor = backbone(images)
            return bare
        if isinstance(self.adapters, Reweighted):
            return self.adapters.features(backbone, images)
        features: Tensor = backbone(images, self.adapters.adapters())
        return features

    def settle(self, backbone: AdaptedViT) -> None:
        """Makes of what may change while it is learned what a fixed graph can hold."""
        for name in ("is_over", "is_skipped"):
            value = bool(getattr(self, name))
            delattr(self, name)
            setattr(self, name, value)
        if isinstance(self.adapters, Reweighted) and not self.is_skipped:
            self.merged = self.adapters.merged(backbone)


class FirstSessionModel(nn.Module):
    """The backbone, what the first session makes of it if any, and a classifier in closed form.

    Args:
        backbone: The frozen ViT.
        config: Whether there is a first session, and which.
        seed: Of the initial weights.
        head: Has `add_classes` and turns features into logits (B, C).
    """

    def __init__(
        self, backbone: AdaptedViT, config: FirstSessionConfig, seed: int, head: nn.Module
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.first = FirstSession(backbone, config, seed) if config.first_session else None
        self.head: Any = head

    def features(self, inputs: Tensor) -> Tensor:
        """Returns what the classifier looks at.

        Shape:
            inputs: images (B, 3, S, S), or features, which are given back. Output: (B, F).
        """
        if inputs.ndim == 2:
            return inputs
        if self.first is None:
            found: Tensor = self.backbone(inputs)
            return found
        return self.first.features(self.backbone, inputs)

    def scores(self, features: Tensor) -> Tensor:
        """Returns the logits (B, C) of features (B, F), in full precision whatever these had."""
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.head(features.float())
        return logits

    def fixed_graph(self) -> nn.Module:
        """Returns the model, without what may change while it is learned."""
        if self.first is not None:
            self.first.settle(self.backbone)
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the logits: of the trained head while the first session lasts.

        Shape:
            inputs: images (B, 3, S, S) or features (B, F). Output: (B, C).
        """
        if self.first is not None and not self.first.is_over:
            logits: Tensor = self.first.head(self.first.features(self.backbone, inputs))
            return logits
        return self.scores(self.features(inputs))


class FirstSessionStrategy(AdapterStrategy):
    """Adapts the backbone to the first experience, if it is to, and nothing after it."""

    config: FirstSessionConfig
    model: FirstSessionModel

    def check_experience(self, dataset: AvalancheDataset) -> None:
        """Refuses a first experience that has nothing to tell apart, where that is asked for."""
        is_asked = self.config.first_session and self.config.one_class == "refuse"
        is_first = not self.classes_by_experience
        if is_asked and is_first and (count := len(classes_of(dataset))) < _LEAST:
            raise InputError(
                f"the first experience must hold at least {_LEAST} classes to train a first "
                f"session, got {count}; `one_class=skip` goes on without, `first_session=false` "
                "never trains one"
            )

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Makes room for the new classes, in the trained head for those of experience 0 alone."""
        if self.model.first is not None:
            self.model.first.add_classes(classes, generator)
        self.model.head.add_classes(classes)

    def begin_experience(self) -> None:
        """Says whether a gradient is taken, and from what dropout draws."""
        first = self.model.first
        self.learns_by_gradient = first is not None and first.is_due(self.classes_by_experience)
        if first is not None:
            first.adapters.noise = self.generator("dropout", self.device)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns SGD."""
        return sgd(parameters, self.config.lr, self.config.weight_decay)

    def begin_epoch(self, epoch: int) -> None:
        """Lowers the learning rate along a cosine."""
        set_cosine_rates(self.optimizer, epoch, self.config.epochs)

    def phases(self) -> Iterator[Phase]:
        """Yields the first session in the first experience, and nothing else."""
        if self.model.first is not None:
            yield from self.model.first.phases(self.classes_by_experience, self.config)

    def generators(self) -> dict[str, torch.Generator]:
        """Returns what dropout draws from."""
        noise = None if self.model.first is None else self.model.first.adapters.noise
        return {} if noise is None else {"dropout": noise}

    def frozen_features(self) -> FeatureExtractor | None:
        """Returns the network as it was adapted, once it is as it will stay."""
        first = self.model.first
        if first is not None and not first.is_over:
            return None
        used = [self.backbone] if first is None else [self.backbone, first.adapters]
        return self.features.feature_extractor(self.model.features, *used)

    def plain_features(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the features (B, F) of the experience's images, not augmented, and labels (B,).

        To be asked once the first session is over; from the cache where it can.
        """
        extractor = cast("FeatureExtractor", self.frozen_features())
        frozen = self.features.cached_features(self.experience.dataset, extractor)
        with torch.no_grad(), self.events.timed("statistics", len(frozen)):
            for rows, labels in frozen.batches():
                yield rows.to(self.device), labels.to(self.device)
