"""DualPrompt: general and expert prompts.

Prompts are prefixes: learned keys and values that all tokens attend to. A general one in the first
blocks is shared by all experiences; in the blocks behind each experience has an expert of its own,
with a key. An image's query, its features in the plain network, finds the expert at inference.

Reference: Zifeng Wang, Zizhao Zhang, Sayna Ebrahimi, Ruoxi Sun, Han Zhang, Chen-Yu Lee, Xiaoqi Ren,
Guolong Su, Vincent Perot, Jennifer Dy, Tomas Pfister, "DualPrompt: Complementary Prompting for
Rehearsal-Free Continual Learning", ECCV 2022, arXiv:2204.04799.

With q(x) the features of x in the plain network, g the general prefixes, e_t and k_t the expert and
the key of experience t:

    attention    softmax over [prefix keys; keys], values [prefix values; values]: the stream keeps
                 its tokens, and the class token is read
    before t     e_t <- e_(t-1), from the second experience on
    training     of g, e_t, k_t and the head, with e_t for every image:
                 cross-entropy over the current classes - w * mean of cos(q, k_t)
    inference    the expert with the largest cos(q(x), k_t)
    step         Adam at a constant rate, gradients clipped to a length of 1 together

Differs from the authors' code (JAX), unless `fidelity="official"`:
    `selection="image"`  theirs takes, on CIFAR-100, the expert that most images of the test batch
                         ask for ("batch"): where a batch is of one task, it tells the task
    `pool_size=None`     an expert comes with each experience. Theirs has 10 from the start, and an
                         image may choose one that was never trained.
    `init`, `lr`         wider prefixes and a higher rate learn in the few steps of a small stream
`prompt_pairing="port"` does what the port to PyTorch does, and many codes made from it: images get
keys as values, and the prompts of other images. Without an option: more experiences than
`pool_size` are refused, where theirs silently stops using the experience's own expert.
"""

from collections.abc import Sequence
from typing import Self

import torch
from pydantic import Field
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.prompts import RANGES, PrefixPool, chosen_by, cosines, pull
from cl_adapters.strategies.core.avalanche_types import AvalancheDataset
from cl_adapters.strategies.core.prompting import (
    KeyedConfig,
    KeyedPromptStrategy,
    PairedConfig,
    PromptModel,
)
from cl_adapters.strategies.core.strategy import Output
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["DualPrompt", "DualPromptConfig", "DualPromptModel"]


class DualPromptConfig(KeyedConfig, PairedConfig):
    """Options of DualPrompt."""

    pool_size: int | None = Field(
        default=None, ge=1, description="experts from the start; None: one more each experience"
    )
    general_length: int = Field(default=5, ge=1, description="positions of the general prefix")
    general_blocks: int = Field(default=2, ge=0, description="blocks that have it, the first ones")
    length: int = Field(default=5, ge=1, description="positions of an expert's prefix in a block")
    expert_blocks: int = Field(default=3, ge=1, description="blocks that have it, the next ones")

    @classmethod
    def official(cls) -> Self:
        """Returns the authors' settings for CIFAR-100, on one device."""
        return cls(pool_size=10, selection="batch", init="jax", lr=0.03 * 24 / 256)


class DualPromptModel(PromptModel):
    """The backbone, the general prefix, the experts with their keys, and the head."""

    def __init__(self, backbone: AdaptedViT, config: DualPromptConfig, seed: int) -> None:
        super().__init__(backbone, config, config.init)
        self.config: DualPromptConfig = config
        self.task = 0  # whose expert is trained
        if config.prompts == "none":
            return
        # Of a network with few blocks the last is left to the experts.
        width, start = backbone.embed_dim, min(config.general_blocks, backbone.num_blocks - 1)
        stop = min(start + config.expert_blocks, backbone.num_blocks)
        source = torch.Generator().manual_seed(seed)
        self.general = PrefixPool(range(start), config.general_length, width, config.init)
        self.experts = PrefixPool(range(start, stop), config.length, width, config.init)
        self.keys = nn.ParameterList()
        self.general.add(source)
        for _ in range((config.pool_size or 0) if config.prompts == "pool" else 1):
            self.add_expert(source)

    def add_expert(self, generator: torch.Generator) -> None:
        """Adds an expert, and its key where experts are chosen."""
        self.experts.add(generator)
        if self.config.prompts == "pool":
            key = torch.empty(self.backbone.embed_dim)
            key.uniform_(*RANGES[self.config.init], generator=generator)
            self.keys.append(nn.Parameter(key))

    def prompted(self, images: Tensor, query: Tensor | None) -> Output:
        """Returns logits (B, C) of images, and in train mode how near the key is to the queries."""
        config, extras = self.config, {}
        if query is None:
            prompts = self.experts.entries[0]
        else:
            similarity = cosines(query, torch.stack(list(self.keys)))
            chosen = similarity.new_full((images.shape[0], 1), self.task, dtype=torch.long)
            if not self.training:
                chosen = chosen_by(similarity, 1, config.selection)
            extras = {"pull": pull(similarity, chosen), "chosen": chosen}
            prompts = self.experts.chosen(chosen[:, 0])
        places = dict(self.general.places(self.general.entries[0]))
        places |= dict(self.experts.places(prompts, config.prompt_pairing))
        return Output(self.heads(self.backbone(images, AdapterSet(places))), extras)


class DualPrompt(KeyedPromptStrategy):
    """Trains a general prefix and one expert an experience, found by its key."""

    config_class = DualPromptConfig
    config: DualPromptConfig
    model: DualPromptModel
    pieces = ("heads", "prompts")
    model_class = DualPromptModel

    def check_experience(self, dataset: AvalancheDataset) -> None:  # noqa: ARG002
        """Refuses more experiences than there are experts.

        Raises:
            InputError: If the pool has none left.
        """
        size = self.config.pool_size
        wanted = max(len(self.classes_by_experience) + 1, self.stream_length or 0)
        if self.has_pool and size is not None and wanted > size:
            raise InputError(
                f"`pool_size` must be at least the number of experiences, {wanted}, got {size}"
            )

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Adds rows to the head, and an expert for the experience unless there is one."""
        super().add_classes(classes, generator)
        if self.has_pool and len(self.model.experts) < len(self.classes_by_experience):
            self.model.add_expert(generator)

    def begin_experience(self) -> None:
        """Starts the expert as the one before it; no other, nor another key, is trained."""
        if not self.has_pool:
            return
        task = self.model.task = len(self.classes_by_experience) - 1
        self.model.experts.copy_from_last(task)
        self.model.experts.train_only(task)
        for number, key in enumerate(self.model.keys):
            key.requires_grad_(requires_grad=number == task)
