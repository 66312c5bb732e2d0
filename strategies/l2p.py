"""L2P: learning to prompt.

A pool of prompts, tokens that are learned, each with a key. An image's query, its features in the
plain network, chooses the prompts with the nearest keys; they are put in before block 0, pass all
blocks, and the mean of what leaves at their places is classified. The backbone never changes.

Reference: Zifeng Wang, Zizhao Zhang, Chen-Yu Lee, Han Zhang, Ruoxi Sun, Xiaoqi Ren, Guolong Su,
Vincent Perot, Jennifer Dy, Tomas Pfister, "Learning to Prompt for Continual Learning", CVPR 2022,
arXiv:2112.08654.

With q(x) the features of x in the plain network, P_m the prompts of length L and k_m their keys:

    choice      the `top_k` prompts with the largest cos(q(x), k_m)
    features    mean over the top_k L outputs at the places of the prompts, after the last norm
    answer      argmax of a linear head on the features
    loss        cross-entropy over the current classes
                - w * mean over images of the sum of cos(q, k_m) over the chosen prompts
    step        Adam at a constant rate, gradients clipped to a length of 1 together

Prompts get gradients through the network if they are chosen, keys from the second term alone. All
that is learned goes on being trained in each experience; nothing is kept of a class but its row.

Differs from the authors' code (JAX), unless `fidelity="official"`:
    `selection="image"`  each image has the prompts that it chooses. Theirs counts the choices of a
                         batch and gives all its images the most frequent ones, in tests too, where
                         a batch is mostly of one task: the batch tells the task ("batch").
    `length`, `top_k`, `key_weight`  5, 5 and 0.1 as in the port to PyTorch, theirs 10, 4 and 1
    `init="port"`, `lr`  wider prompts and a higher rate learn in the few steps of a small stream
`layout` and `init` tell the original ("jax") from the port ("port"), whose prompts stand behind the
class token and get its position vector. Without an option: theirs trains on 8 devices, each of
which votes over its own 16 images, at 8 times the rate; `official` is one of them.
"""

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.prompts import RANGES, ChosenTokens, chosen_by, cosines, pull
from cl_adapters.strategies.core.prompting import (
    KeyedConfig,
    KeyedPromptStrategy,
    PromptModel,
)
from cl_adapters.strategies.core.strategy import Output
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["L2P", "L2PConfig", "L2PModel"]


class L2PConfig(KeyedConfig):
    """Options of L2P."""

    pool_size: int = Field(default=10, ge=1, description="prompts in the pool")
    length: int = Field(default=5, ge=1, description="tokens of a prompt")
    top_k: int = Field(default=5, ge=1, description="prompts that an image chooses")
    key_weight: float = Field(default=0.1, ge=0, description="w, of the pull on chosen keys")
    layout: Literal["jax", "port"] = Field(
        default="jax",
        description="jax: prompts in front, no position; port: behind the class token, with its",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.top_k > self.pool_size:
            raise ValueError(
                f"`top_k` must be at most `pool_size`, {self.pool_size}, got {self.top_k}"
            )
        return self

    @classmethod
    def official(cls) -> Self:
        """Returns the authors' settings for CIFAR-100, on one device."""
        return cls(
            length=10, top_k=4, key_weight=1.0, selection="batch", init="jax", batch_size=16,
            lr=0.03 * 16 / 256,
        )  # fmt: skip


class L2PModel(PromptModel):
    """The backbone, the pool of prompts with its keys, and the head."""

    def __init__(self, backbone: AdaptedViT, config: L2PConfig, seed: int) -> None:
        super().__init__(backbone, config, config.init)
        self.config: L2PConfig = config
        if config.layout == "port" and not backbone.has_class_position:
            raise InputError(
                "`layout` must be 'jax' with a backbone whose class token has no position vector, "
                "got 'port'"
            )
        if config.prompts == "none":
            return
        generator, (low, high) = torch.Generator().manual_seed(seed), RANGES[config.init]
        shape = (config.pool_size, config.length, backbone.embed_dim)
        self.prompts = nn.Parameter(torch.empty(shape).uniform_(low, high, generator=generator))
        if config.prompts == "pool":
            keys = torch.empty(shape[::2]).uniform_(low, high, generator=generator)
            self.keys = nn.Parameter(keys)

    def prompted(self, images: Tensor, query: Tensor | None) -> Output:
        """Returns logits (B, C) of images, and how near their prompts' keys are to the queries."""
        config, extras = self.config, {}
        if query is None:
            rows = self.prompts[: config.top_k].flatten(0, 1)
        else:
            similarity = cosines(query, self.keys)
            chosen = chosen_by(similarity, config.top_k, config.selection)
            extras = {"pull": pull(similarity, chosen), "chosen": chosen}
            rows = self.prompts[chosen].flatten(1, 2)
        is_port = config.layout == "port"
        place, position = ("after_class", "class") if is_port else ("front", "none")
        adapters = AdapterSet({("tokens", 0): ChosenTokens(rows, place, position)})
        start = self.backbone.num_prefix_tokens if is_port else 0
        tokens = self.backbone.run(self.backbone.tokens(images), adapters=adapters)
        features = self.backbone.features(tokens, slice(start, start + rows.shape[-2]))
        return Output(self.heads(features), extras)


class L2P(KeyedPromptStrategy):
    """Trains a pool of prompts, of which each image chooses the nearest by their keys."""

    config_class = L2PConfig
    config: L2PConfig
    model: L2PModel
    pieces = ("heads", "prompts")
    model_class = L2PModel
