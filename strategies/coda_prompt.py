"""CODA-Prompt: prompts put together from components by attention.

A prompt is a prefix of each of the first blocks, keys and values that all tokens attend to. It is a
sum of components, weighed by how an image's query, its features in the plain network, fits their
keys: nothing is chosen, so that gradients reach the keys. Each experience adds components, which
begin orthogonal to those before, and freezes these.

Reference: James Seale Smith, Leonid Karlinsky, Vyshnavi Gutta, Paola Cascante-Bonilla, Donghyun
Kim, Assaf Arbelle, Rameswar Panda, Rogerio Feris, Zsolt Kira, "CODA-Prompt: COntinual Decomposed
Attention-based Prompting for Rehearsal-Free Continual Learning", CVPR 2023, arXiv:2211.13218.

With q the features of an image in the plain network, and of each block P_m, K_m, A_m the prompts,
keys and attention vectors of the components so far:

    before t     new components, each of P, K, A a normal draw, less what it has along all rows
                 before it, scaled to length 1; the earlier ones are frozen
    prompt       sum of alpha_m P_m, alpha_m = cos(q * A_m, K_m): its first half are keys, the
                 second values; softmax over [prefix; keys] as with any other position
    loss         cross-entropy over the current classes + mu * sum over blocks and P, K, A of the
                 mean squared entry of M M' - I
    step         Adam; the rate of epoch e of E is cos(0.495 pi e / (E - 1)) of that at the start
    answer       argmax of a linear head on the class token, with all components so far

Differs from the authors' code, unless `fidelity="official"`:
    `components=None`    each experience adds `per_experience` of them. Theirs shares 100 out among
                         the experiences, whose number has to be known: it comes from the stream, or
                         from `experiences_total`. Both follow the same law, as components of
                         experiences to come are never read.
    `start="qr"`         orthogonal to all rows before. Theirs ("classical") takes off projections
                         on rows that are not orthogonal any more once they were trained.
    `lr`, `epochs`, `batch_size`, `clip_norm`, `drop_last`  what learns in the few steps of a small
                         stream, and their 0.001, 20, 128, none and true
Without an option: a new head's biases are 0, theirs are drawn.
"""

from collections.abc import Mapping
from typing import Self

import torch
from pydantic import Field, field_validator
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.components import ComponentPool, Start
from cl_adapters.peft.prompts import PrefixPool
from cl_adapters.schedule import quarter_cosine
from cl_adapters.strategies.core.optimizers import set_cosine_rates
from cl_adapters.strategies.core.prompting import PromptConfig, PromptModel, PromptStrategy
from cl_adapters.strategies.core.strategy import Output
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["CODAPrompt", "CODAPromptConfig", "CODAPromptModel"]


class CODAPromptConfig(PromptConfig):
    """Options of CODA-Prompt."""

    components: int | None = Field(
        default=None, ge=1, description="of all experiences together; None: as many as they bring"
    )
    per_experience: int = Field(default=10, ge=1, description="components that each brings then")
    experiences_total: int | None = Field(
        default=None, ge=1, description="T, that share `components`; None: the stream's own"
    )
    length: int = Field(default=8, ge=2, description="keys and values of a component: even")
    blocks: int = Field(default=5, ge=1, description="blocks that have prompts, the first ones")
    start: Start = Field(default="qr", description="new components: qr, or classical as published")
    penalty: float = Field(default=0.0, ge=0, description="mu, on what is not orthonormal")

    @field_validator("length")
    @classmethod
    def _halve(cls, value: int) -> int:
        if value % 2:
            raise InputError(f"must be even, half of it keys and half values, got {value}")
        return value

    @classmethod
    def official(cls) -> Self:
        """Returns the authors' settings for CIFAR-100."""
        return cls(
            components=100, start="classical", batch_size=128, epochs=20, lr=0.001, drop_last=True,
            clip_norm=None,
        )  # fmt: skip


class CODAPromptModel(PromptModel):
    """The backbone, the components, and the head."""

    def __init__(self, backbone: AdaptedViT, config: CODAPromptConfig, seed: int) -> None:
        super().__init__(backbone, config, None)
        self.config: CODAPromptConfig = config
        blocks, width = min(config.blocks, backbone.num_blocks), backbone.embed_dim
        self.prefix = PrefixPool(range(blocks), config.length // 2, width, "jax")
        self.components = ComponentPool(blocks, config.length, width, config.start)
        if config.prompts == "one_prompt":
            self.prefix.add(torch.Generator().manual_seed(seed))

    def prompted(self, images: Tensor, query: Tensor | None) -> Output:
        """Returns logits (B, C) of images under the prompts that are put together for them."""
        if query is None:
            prompts = self.prefix.entries[0]
        else:
            prompts = torch.stack(self.components.mixed(query).chunk(2, dim=2), dim=2)
        adapters = AdapterSet(dict(self.prefix.places(prompts)))
        return Output(self.heads(self.backbone(images, adapters)))


class CODAPrompt(PromptStrategy):
    """Trains components of prompts, mixed for each image, and freezes those of old experiences."""

    config_class = CODAPromptConfig
    config: CODAPromptConfig
    model: CODAPromptModel
    pieces = ("heads", "prompts")
    model_class = CODAPromptModel

    def begin_experience(self) -> None:
        """Adds components, which alone are trained beside the head."""
        if self.has_pool:
            self.model.components.add(self._share(), self.generator("components"))
            self.model.to(self.device)

    def _share(self) -> int:
        """Returns how many components this experience brings.

        Raises:
            InputError: If they are to be shared out among experiences whose number nobody says, or
                that are more than they are.
        """
        components = self.config.components
        if components is None:
            return self.config.per_experience
        total = self.config.experiences_total or self.stream_length
        if total is None:
            raise InputError(
                "`experiences_total` must be given with `components` in a stream that does not say "
                "how many it has, got none"
            )
        wanted = max(total, len(self.classes_by_experience))
        values = {"components": components, "experiences_total": total}
        for name, value in values.items():
            if value < wanted:
                raise InputError(
                    f"`{name}` must be at least the number of experiences, {wanted}, got {value}"
                )
        return components // total

    def begin_epoch(self, epoch: int) -> None:
        """Lowers the learning rate along a quarter of a cosine."""
        super().begin_epoch(epoch)
        set_cosine_rates(self.optimizer, epoch, self.config.epochs, quarter_cosine)

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the current classes, and the penalty if it counts."""
        loss = super().batch_loss(logits, targets)
        if not self.config.penalty or not self.has_pool:
            return loss
        return loss + self.config.penalty * self.model.components.penalty()

    def rebuild(self, state: Mapping[str, Tensor]) -> None:
        """Makes room for the components of a checkpoint."""
        names = [f"components.keys.{each}" for each in range(len(self.classes_by_experience))]
        self.model.components.make_room([state[name].shape[1] for name in names if name in state])
