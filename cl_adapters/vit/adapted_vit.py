"""A frozen timm Vision Transformer with slots for adapters.

`AdaptedViT` takes any timm `VisionTransformer` whose blocks are plain pre-norm blocks (class token
or pooled, LayerScale, registers, CLIP's first norm, query/key norm), leaves it unmodified and never
trains it: no gradient, no dropout, buffers still. Adapters are an argument of `run`, not a part of
the network, so one backbone serves several experts at once. This is the only file that knows the
inside of timm's blocks.

Shapes: B batch, C channels, S image size, N tokens (class and register tokens included), D width
(`embed_dim`), H heads, L prefix length.
"""

from collections.abc import Iterable, Mapping
from typing import Final, cast, get_args

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet, Slot

__all__ = ["AdaptedViT", "prefix_attention"]

SLOTS: Final[tuple[Slot, ...]] = get_args(Slot)

Triple = tuple[float, float, float]

_POOLS = ("token", "avg", "avgmax", "max")


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
        query, key, value: (B, H, N, D / H). prefix_key, prefix_value: (H, L, D / H).
        Output: (B, H, N, D / H).
    """
    batch = query.shape[0]
    prefix_key = prefix_key.to(key.dtype).expand(batch, -1, -1, -1)
    prefix_value = prefix_value.to(value.dtype).expand(batch, -1, -1, -1)
    original = functional.scaled_dot_product_attention(
        query,
        torch.cat((prefix_key, key), dim=2),
        torch.cat((torch.zeros_like(prefix_value), value), dim=2),
    )
    return original + functional.scaled_dot_product_attention(query, prefix_key, prefix_value)


class AdaptedViT(nn.Module):
    """A frozen ViT whose blocks can be run with adapters and in parts.

    `features(run(tokens(images)))` equals timm's `forward_features` followed by
    `forward_head(pre_logits=True)`.

    Args:
        vit: A timm `VisionTransformer`. It is used as it is, put into eval mode for good, and its
            parameters stop requiring gradients.
        pixels: Mean and standard deviation a channel, for pixels in [0, 1], under which images may
            also be bytes; None takes floating-point images only, scaled by a transform.
        is_compiled: Let `torch.compile` fuse the blocks, which changes the last digits.

    Attributes:
        num_passes: Images whose features were computed so far; a method that asks several experts
            counts an image once for each.

    Raises:
        InputError: If the network is not a `VisionTransformer` of plain pre-norm blocks.

    Example:
        >>> import timm
        >>> vit = AdaptedViT(timm.create_model("test_vit", num_classes=0, img_size=32))
        >>> vit(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 64])
    """

    def __init__(
        self,
        vit: nn.Module,
        *,
        pixels: tuple[Triple, Triple] | None = None,
        is_compiled: bool = False,
    ) -> None:
        super().__init__()
        self.pixels = pixels
        self._plain_block, self._adapted_block = _plain_block, _adapted_block
        if is_compiled:
            self._plain_block = torch.compile(_plain_block)
            self._adapted_block = torch.compile(_adapted_block)
        self.vit = _checked(vit)
        self.vit.requires_grad_(requires_grad=False)
        self.train(mode=False)
        self.num_passes = 0

    def train(self, mode: bool = True) -> "AdaptedViT":  # noqa: FBT001, FBT002 - torch's signature
        """Keeps the network in eval mode whatever `mode` says: dropout and buffers stay still."""
        super().train(mode)
        self.vit.eval()
        return self

    @property
    def embed_dim(self) -> int:
        """D, width of the tokens and of the features."""
        return int(self.vit.embed_dim)

    @property
    def num_blocks(self) -> int:
        """Number of transformer blocks."""
        return len(self.vit.blocks)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (C, S, S) of one image."""
        height, width = self.vit.patch_embed.img_size
        return int(self.vit.in_chans), int(height), int(width)

    def inputs(self, images: Tensor, device: torch.device) -> Tensor:
        """Moves images to a device and scales there what came as bytes: a quarter of the load.

        A GPU is not waited for, and anything but images only moves.

        Shape:
            images: (B, C, S, S), bytes or floating-point numbers; or rows (B, ...) of any kind.
            Output: the same, floating-point where images were bytes.

        Raises:
            InputError: If a pixel is not finite.
        """
        is_image = images.ndim == 4
        if device.type == "cuda" and images.device.type == "cpu":
            if is_image:
                _refuse_infinite(images)  # here, since to look at them there would be to wait
            images = images.pin_memory()
        images = images.to(device, non_blocking=True)
        return self._scaled(images) if is_image else images

    def _scaled(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8 or self.pixels is None:
            return images
        # Filled number by number: a tensor made of a list would be waited for.
        mean, std = (
            torch.cat([torch.full((1, 1, 1), each, device=images.device) for each in values])
            for values in self.pixels
        )
        return images.float().div_(255).sub_(mean).div_(std)

    def tokens(self, images: Tensor) -> Tensor:
        """Embeds the patches and adds class token, registers and positions.

        Pixels are looked at on the CPU only: a GPU would have to finish its work before it answers.

        Shape:
            images: (B, C, S, S). Output: (B, N, D).

        Raises:
            InputError: If the shape or the type does not fit or a pixel is not finite.
        """
        if tuple(images.shape[1:]) != self.input_shape:
            raise InputError(
                f"images must have shape (B, {', '.join(map(str, self.input_shape))}) for this "
                f"backbone, got {tuple(images.shape)}"
            )
        images = self._scaled(images)
        if not images.is_floating_point():
            raise InputError(
                f"pixels must be floating-point numbers, scaled by a transform, got {images.dtype}"
            )
        if images.device.type == "cpu":
            _refuse_infinite(images)
        embedded = self.vit._pos_embed(self.vit.patch_embed(images))
        return cast("Tensor", self.vit.norm_pre(embedded))

    def run(
        self,
        tokens: Tensor,
        start: int = 0,
        stop: int | None = None,
        *,
        adapters: AdapterSet | None = None,
    ) -> Tensor:
        """Runs blocks `start` to `stop` - 1; negative numbers count from the end.

        Shape:
            tokens: (B, N, D). Output: (B, N, D).
        """
        for index in range(*slice(start, stop).indices(self.num_blocks)):
            block = self.vit.blocks[index]
            if adapters is None or not adapters.touches(index):
                tokens = self._plain_block(block, tokens)
            else:
                beside = {slot: adapters.at(slot, index) for slot in SLOTS}
                tokens = self._adapted_block(block, tokens, beside)
        return tokens

    def features(self, tokens: Tensor) -> Tensor:
        """Normalises and pools the tokens that leave the last block.

        Shape:
            tokens: (B, N, D). Output: (B, D).
        """
        self.num_passes += len(tokens)
        return cast("Tensor", self.vit.forward_head(self.vit.norm(tokens), pre_logits=True))

    def forward(self, images: Tensor, adapters: AdapterSet | None = None) -> Tensor:
        """Computes the features of images.

        Shape:
            images: (B, C, S, S). Output: (B, D).
        """
        return self.features(self.run(self.tokens(images), adapters=adapters))


def _refuse_infinite(images: Tensor) -> None:
    if images.is_floating_point() and not bool(torch.isfinite(images).all()):
        worst = int((~torch.isfinite(images)).flatten(1).any(dim=1).nonzero()[0])
        raise InputError(
            f"pixels must be finite, got NaN or infinity in image {worst} of the batch"
        )


# Functions of a block, so that one compiled version serves all blocks that are filled alike.
def _plain_block(block: Block, stream: Tensor) -> Tensor:
    return cast("Tensor", block(stream))


def _adapted_block(block: Block, stream: Tensor, beside: Mapping[Slot, nn.Module | None]) -> Tensor:
    normed = block.norm1(stream)
    attended = block.ls1(_attend(block.attn, normed, beside["key_value"], beside["prefix"]))
    beside_attention = beside["attention"]
    if beside_attention is not None:
        attended = attended + beside_attention(normed)
    stream = stream + attended
    through_mlp = block.ls2(block.mlp(block.norm2(stream)))
    beside_mlp = beside["mlp"]
    if beside_mlp is not None:
        through_mlp = through_mlp + beside_mlp(stream)
    return cast("Tensor", stream + through_mlp)


def _attend(
    attention: Attention, normed: Tensor, lora: nn.Module | None, prefix: nn.Module | None
) -> Tensor:
    if lora is None and prefix is None:
        return cast("Tensor", attention(normed))
    query, key, value = attention.qkv(normed).chunk(3, dim=-1)  # each (B, N, D)
    if lora is not None:
        key_update, value_update = lora(normed)
        key, value = key + key_update, value + value_update
    query, key, value = (_heads(part, attention.num_heads) for part in (query, key, value))
    query, key = attention.q_norm(query), attention.k_norm(key)
    if prefix is None:
        mixed = functional.scaled_dot_product_attention(query, key, value)
    else:
        prefix_key, prefix_value = (_heads(part, attention.num_heads) for part in prefix())
        mixed = prefix_attention(query, key, value, prefix_key, prefix_value)
    mixed = attention.norm(mixed.transpose(1, 2).flatten(2))  # (B, N, D)
    return cast("Tensor", attention.proj(mixed))


def _heads(tensor: Tensor, num_heads: int) -> Tensor:
    # (..., N, D) -> (..., H, N, D / H)
    return tensor.view(*tensor.shape[:-1], num_heads, -1).transpose(-3, -2)


def _checked(vit: nn.Module) -> VisionTransformer:
    # Exact types: a subclass may compute something else under the same attribute names.
    if type(vit) is not VisionTransformer:
        raise InputError(f"backbone must be a timm VisionTransformer, got {type(vit).__name__}")
    blocks = cast("Iterable[Block]", vit.blocks)
    for index, block in enumerate(blocks):
        if type(block) is not Block:
            raise InputError(
                f"block {index} of the backbone must be a plain pre-norm timm Block, "
                f"got {type(block).__name__}"
            )
        if type(block.attn) is not Attention or block.attn.gate is not None:
            kind = "gated attention" if type(block.attn) is Attention else type(block.attn).__name__
            raise InputError(
                f"attention of block {index} must be timm's plain Attention, got {kind}"
            )
    if vit.global_pool not in _POOLS:
        raise InputError(
            f"pooling of the backbone must be one of {', '.join(_POOLS)}, got {vit.global_pool!r}"
        )
    return vit
