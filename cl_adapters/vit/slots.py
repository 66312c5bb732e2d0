"""How a block of timm's ViT runs with filled slots.

This file and `adapted_vit.py` are the only two that know the inside of timm's network. Functions of
a block, not methods, so that one compiled version serves all blocks that are filled alike.
`cl_adapters.peft.adapter_set` says what the slots are.

Shapes: B batch, N tokens (class and register tokens included), D width, H heads, L prefix length.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import Slot
from cl_adapters.vit.attention import attention, is_written_out

__all__ = [
    "adapted_block",
    "checked",
    "linear_layer",
    "plain_block",
    "prefix_attention",
    "shared_attention",
]

Filled = Mapping[Slot, Callable[..., Any]]

_POOLS: Final = ("token", "avg", "avgmax", "max")
_OF_ATTENTION: Final = frozenset({"key_value", "prefix", "qkv", "proj", "attention_graph"})
_OF_MLP: Final = frozenset({"fc1", "fc2"})


def plain_block(block: Block, stream: Tensor) -> Tensor:
    """Returns what a block makes of the tokens (B, N, D) with all its slots empty."""
    return adapted_block(block, stream, {}) if is_written_out(stream) else block(stream)


def adapted_block(block: Block, stream: Tensor, filled: Filled) -> Tensor:
    """Returns what a block makes of the tokens (B, N, D) with some of its slots filled."""
    normed = block.norm1(stream)
    is_plain = _OF_ATTENTION.isdisjoint(filled)
    by_timm = is_plain and not is_written_out(normed)
    attended = block.ls1(block.attn(normed) if by_timm else _attend(block.attn, normed, filled))
    if "attention" in filled:
        attended = attended + filled["attention"](normed)
    stream = stream + attended
    normed = block.norm2(stream)
    is_plain = _OF_MLP.isdisjoint(filled)
    through_mlp = block.ls2(block.mlp(normed) if is_plain else _feed(block.mlp, normed, filled))
    if "mlp" in filled:
        through_mlp = through_mlp + filled["mlp"](stream)
    return cast("Tensor", stream + through_mlp)


def _attend(layer: Attention, normed: Tensor, filled: Filled) -> Tensor:
    projected = layer.qkv(normed)
    if "qkv" in filled:
        projected = projected + filled["qkv"](normed, projected)
    query, key, value = projected.chunk(3, dim=-1)  # each (B, N, D)
    if "key_value" in filled:
        key_update, value_update = filled["key_value"](normed)
        key, value = key + key_update, value + value_update
    nodes = query, value
    query, key, value = (_heads(part, layer.num_heads) for part in (query, key, value))
    query, key = layer.q_norm(query), layer.k_norm(key)
    if "prefix" in filled:
        prefix = filled["prefix"]
        own = (_heads(part, layer.num_heads) for part in prefix())
        attend = prefix_attention if getattr(prefix, "renormalise", True) else shared_attention
        mixed = attend(query, key, value, *own)
    else:
        mixed = attention(query, key, value)
    mixed = layer.norm(mixed.transpose(1, 2).flatten(2))  # (B, N, D)
    attended = layer.proj(mixed)
    if "proj" in filled:
        attended = attended + filled["proj"](mixed, attended)
    if "attention_graph" in filled:
        products = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        added = filled["attention_graph"](products.softmax(dim=-1), *nodes, attended)
        attended = attended + added
    return cast("Tensor", attended)


def _feed(mlp: nn.Module, normed: Tensor, filled: Filled) -> Tensor:
    layers = _plain_mlp(mlp)
    hidden = layers.fc1(normed)
    if "fc1" in filled:
        hidden = hidden + filled["fc1"](normed, hidden)
    hidden = layers.norm(layers.act(hidden))
    output = layers.fc2(hidden)
    if "fc2" in filled:
        output = output + filled["fc2"](hidden, output)
    return cast("Tensor", output)


def prefix_attention(
    query: Tensor, key: Tensor, value: Tensor, prefix_key: Tensor, prefix_value: Tensor
) -> Tensor:
    """Computes LAE's attention with a renormalised prefix.

    With a the softmax over the prefix and the original positions together and lambda the share of
    the prefix, the result is sum_original a_j v_j + sum_prefix (a_p / lambda) v_p: the original
    part keeps its weight 1 - lambda, the prefix part gets weight 1, a row sums to 2 - lambda. Since
    a_p / lambda is the softmax over the prefix alone, both parts are ordinary attention: the first
    with the prefix's values set to zero, the second over the prefix only.

    Shape:
        query, key, value: (B, H, N, D / H). prefix_key, prefix_value: (H, L, D / H), or with B in
        front. Output: (B, H, N, D / H).
    """
    prefix_key, prefix_value = _by_image(key, value, prefix_key, prefix_value)
    original = attention(
        query,
        torch.cat((prefix_key, key), dim=2),
        torch.cat((torch.zeros_like(prefix_value), value), dim=2),
    )
    return original + attention(query, prefix_key, prefix_value)


def shared_attention(
    query: Tensor, key: Tensor, value: Tensor, prefix_key: Tensor, prefix_value: Tensor
) -> Tensor:
    """Computes attention with one softmax over the prefix and the original positions.

    Shape:
        As for `prefix_attention`.
    """
    prefix_key, prefix_value = _by_image(key, value, prefix_key, prefix_value)
    return attention(
        query, torch.cat((prefix_key, key), dim=2), torch.cat((prefix_value, value), dim=2)
    )


def _by_image(
    key: Tensor, value: Tensor, prefix_key: Tensor, prefix_value: Tensor
) -> tuple[Tensor, Tensor]:
    batch = key.shape[0]
    return (
        prefix_key.to(key.dtype).expand(batch, -1, -1, -1),
        prefix_value.to(value.dtype).expand(batch, -1, -1, -1),
    )


def _heads(tensor: Tensor, num_heads: int) -> Tensor:
    # (..., N, D) -> (..., H, N, D / H)
    return tensor.view(*tensor.shape[:-1], num_heads, -1).transpose(-3, -2)


def linear_layer(block: Block, slot: Slot) -> nn.Linear | None:
    """Returns the frozen linear layer that a slot stands beside; None if it stands beside none.

    Raises:
        InputError: If the block's MLP is not timm's plain one and the slot lies inside it.
    """
    if slot in {"qkv", "key_value"}:
        return cast("nn.Linear", block.attn.qkv)
    if slot == "proj":
        return cast("nn.Linear", block.attn.proj)
    return cast("nn.Linear", getattr(_plain_mlp(block.mlp), slot)) if slot in _OF_MLP else None


def _plain_mlp(mlp: nn.Module) -> Mlp:
    if type(mlp) is not Mlp:
        raise InputError(
            "slots `fc1` and `fc2` must lie in a backbone with timm's plain Mlp, "
            f"got {type(mlp).__name__}"
        )
    return mlp


def checked(vit: nn.Module) -> VisionTransformer:
    """Returns a network, if it is one whose inside is known.

    Raises:
        InputError: If it is not a `VisionTransformer` of plain pre-norm blocks.
    """
    # Exact types: a subclass may compute something else under the same attribute names.
    if type(vit) is not VisionTransformer:
        raise InputError(f"backbone must be a timm VisionTransformer, got {type(vit).__name__}")
    for index, block in enumerate(cast("Iterable[Block]", vit.blocks)):
        if type(block) is not Block:
            raise InputError(
                f"block {index} of the backbone must be a plain pre-norm timm Block, "
                f"got {type(block).__name__}"
            )
        # Before timm 1.0.28 there is no such attribute.
        if type(block.attn) is not Attention or getattr(block.attn, "gate", None) is not None:
            kind = "gated attention" if type(block.attn) is Attention else type(block.attn).__name__
            raise InputError(
                f"attention of block {index} must be timm's plain Attention, got {kind}"
            )
    if vit.global_pool not in _POOLS:
        raise InputError(
            f"pooling of the backbone must be one of {', '.join(_POOLS)}, got {vit.global_pool!r}"
        )
    return vit
