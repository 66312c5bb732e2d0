"""LAE: Learning, Accumulation, Ensemble.

An online PEFT module learns each experience; an offline copy follows it slowly and keeps what
earlier experiences taught; both vote at inference. A PEFT module is an adapter beside attention,
LoRA on keys and values, or a prefix, in the first blocks of the frozen ViT.

Reference: Qiankun Gao, Chen Zhao, Yifan Sun, Teng Xi, Gang Zhang, Bernard Ghanem, Jian Zhang, "A
Unified Continual Learning Framework with General Parameter-Efficient Tuning", ICCV 2023,
arXiv:2303.10070.

With theta_on, theta_off the parameters of the two PEFT modules and p_on, p_off the softmax over all
classes seen that each gives with the same heads:

    learning       cross-entropy over the current experience's classes only, Adam at a constant
                   rate; from the second experience on the first `freeze_epochs` epochs train the
                   new head alone, so that a random head does not disturb the PEFT module
    accumulation   theta_off <- alpha theta_off + (1 - alpha) theta_on after every step, freeze
                   epochs included; theta_off starts as theta_on at the end of experience 0
    ensemble       score_c = max(p_on_c, p_off_c); in experience 0 the online PEFT module alone

The reported probability is the score divided by its sum over classes, which keeps the argmax.

Regimes (ours, not theirs at any fidelity): with a `policy` other than `never` each regime that the
`detector` tells apart has experts of its own. Online modules go on from where the regime left them;
in a new one they begin as `start` says, by default as those of the experience before, and the
offline ones start again. Those of the regime vote whose classes look most like the image to the
frozen network, at one more pass.

Differs from the authors' code, unless `fidelity="official"`:
    `ema_decay="auto"`   The authors keep alpha = 0.9999, which moves theta_off by 9.9 % an
                         experience on their CIFAR-100 run but by 0.6 % on one of 60 steps, where
                         LAE becomes "the PEFT module of experience 0". `auto` keeps the 9.9 %.
    `drop_last=False`    The authors drop the last, smaller batch of each epoch.
Chosen for the run, not by `fidelity`: they feed pixels in [0, 1] (`--input-range pilot_01`), random
crops and flips (`--augment crop_flip --crop-scale 0.08`), and ViT-B/16 weights of ImageNet-21k.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from cl_adapters.peft.growth import Policy
from cl_adapters.peft.merging import PAPER_DECAY, auto_decay, ema_update
from cl_adapters.strategies.core.compatible import CompatibleHeadConfig
from cl_adapters.strategies.core.config import PeftConfig, TrainedConfig
from cl_adapters.strategies.core.consistency import ConsistencyConfig
from cl_adapters.strategies.core.diagnostics import Votes
from cl_adapters.strategies.core.experts import ExpertsModel, ExpertsStrategy, ensemble
from cl_adapters.strategies.core.starting import SetStartConfig
from cl_adapters.strategies.core.strategy import Output
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["LAE", "LAEConfig", "LAEModel", "ensemble"]


class LAEConfig(TrainedConfig, PeftConfig, CompatibleHeadConfig, SetStartConfig, ConsistencyConfig):
    """Options of LAE; the defaults are the paper's for CIFAR-100 in ten experiences."""

    freeze_epochs: int = Field(default=3, ge=0, description="epochs that train the head alone")
    ema_decay: float | Literal["auto"] = Field(default="auto", description="alpha, in [0, 1]")
    head_init_std: float = Field(default=0.001, gt=0, description="of a new head's weights")
    plain_policy: ClassVar[Policy] = "never"
    policy: Policy = Field(default="never", description="when a new regime of experts begins")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.ema_decay != "auto" and not 0 <= self.ema_decay <= 1:
            raise ValueError(f"`ema_decay` must be 'auto' or lie in [0, 1], got {self.ema_decay}")
        if self.freeze_epochs >= self.epochs:
            raise ValueError(
                f"`freeze_epochs` must be below `epochs`, {self.epochs}, got {self.freeze_epochs}"
            )
        return self

    @classmethod
    def official(cls) -> Self:
        """Returns the authors' settings."""
        return cls(ema_decay=PAPER_DECAY, drop_last=True)


class LAEModel(ExpertsModel):
    """The backbone, the online and the offline PEFT modules, and the heads that both use."""

    def __init__(self, backbone: AdaptedViT, config: LAEConfig, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.online, self.offline = (config.build_adapters(backbone, seed=seed) for _ in range(2))
        self.offline.requires_grad_(requires_grad=False)
        self.heads = config.build_head(backbone.embed_dim, init_std=config.head_init_std)
        self.register_buffer("votes_offline", torch.tensor(data=False))
        self.votes_offline: Tensor
        pair = nn.ModuleList([self.online, self.offline])
        self.regimes = config.build_regimes(backbone.embed_dim, seed, pair, finds_images=True)

    def forward(self, inputs: Tensor, query: Tensor | None = None) -> Output:
        """Returns the online logits in train mode, log-probabilities of the ensemble in eval mode.

        Shape:
            inputs: images (B, 3, S, S); in train mode also online features (B, D).
            query: (B, D), frozen features that say whose experts vote; None with one regime.
            Output: (B, C); where both vote, `votes` are the classes that each chose, (B,).
        """
        if query is not None and self.regimes is not None:
            return self.by_regime(inputs, self.regimes.of_images(query))
        both = not self.training and bool(self.votes_offline)
        experts = (self.online, self.offline) if both else (self.online,)
        features = inputs if inputs.ndim == 2 else self.backbone.features_of(inputs, experts)
        logits: Tensor = self.heads(features)
        return self.voted(*logits.chunk(2)) if both else self.compared(inputs, features, logits)


class LAE(ExpertsStrategy):
    """Trains an online PEFT module, accumulates it into an offline one, and lets both vote."""

    config_class = LAEConfig
    config: LAEConfig
    model: LAEModel
    pieces = ("heads", "one set")
    diagnostics = (Votes,)

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: LAEConfig, seed: int) -> LAEModel:
        """Returns the backbone with two equal sets of PEFT modules and no heads yet."""
        return LAEModel(backbone, config, seed)

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Adds a head for the new classes; from the second experience on both vote."""
        self.model.heads.add_classes(classes, generator)
        self.model.votes_offline.fill_(len(self.classes_by_experience) > 1)

    def begin_experience(self) -> None:
        """Starts the offline modules as a copy of the online ones at the start of experience 1."""
        self.find_experts()
        if self.met == 2:
            self.model.offline.load_state_dict(self.model.online.state_dict())
        self.model.online.requires_grad_(requires_grad=True)
        self.model.compares = self.config.compatibility > 0 and self.met > 1
        self._is_frozen = False
        self.decay = (
            auto_decay(self.num_steps) if self.config.ema_decay == "auto" else self.config.ema_decay
        )

    def begin_epoch(self, epoch: int) -> None:
        """Freezes the online modules in the first epochs of every experience but the first."""
        frozen = len(self.classes_by_experience) > 1 and epoch < self.config.freeze_epochs
        frozen &= self.model.heads.is_trained  # else nothing would be
        self.phase = "freeze" if frozen else "train"
        self.model.online.requires_grad_(requires_grad=not frozen)
        if self.augmentation.inputs_repeat and frozen != self._is_frozen:
            # The head then learns on features that are computed once for each view.
            online = self.features.feature_extractor(self._online_features)
            self.train_on_features(online if frozen else None)
            self._is_frozen = frozen

    def _online_features(self, images: Tensor) -> Tensor:
        return self.backbone.features_of(images, (self.model.online,))

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the classes of the current experience."""
        loss = self.model.heads.loss(self.current_classes, logits, targets)
        return self.config.with_compatibility(loss, self.output, targets)

    def after_step(self) -> None:
        """Accumulates the online modules into the offline ones."""
        if self.met > 1:
            ema_update(self.model.offline, self.model.online, self.decay)
