"""A frozen timm Vision Transformer with slots for adapters.

`AdaptedViT` takes any timm `VisionTransformer` whose blocks are plain pre-norm blocks (class token
or pooled, LayerScale, registers, CLIP's first norm, query/key norm), leaves it unmodified and never
trains it: no gradient, no dropout, buffers still. Adapters are an argument of `run`, not a part of
the network, so one backbone serves several experts at once. What happens inside a block stands in
`slots.py`.

Shapes: B batch, C channels, S image size, N tokens (class and register tokens included), D width
(`embed_dim`), E sets of adapters.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet, Slot
from cl_adapters.peft.site import Site
from cl_adapters.vit.inserted import Place, inserted, removed
from cl_adapters.vit.pixels import Triple, refuse_infinite, scaled
from cl_adapters.vit.slots import (
    adapted_block,
    checked,
    linear_layer,
    plain_block,
    prefix_attention,
)

__all__ = ["AdaptedViT", "prefix_attention"]


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
        watcher: Shown all features, (B, D) at a time; None shows them to nobody.

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
        self._plain_block, self._adapted_block = plain_block, adapted_block
        if is_compiled:
            self._plain_block = torch.compile(plain_block)
            self._adapted_block = torch.compile(adapted_block)
        self.vit = checked(vit)
        # Not all timms keep the number; of a hybrid, too, the first convolution sees the image.
        layers = self.vit.patch_embed.modules()
        self._channels = next(each.in_channels for each in layers if isinstance(each, nn.Conv2d))
        self.vit.requires_grad_(requires_grad=False)
        self.train(mode=False)
        self.num_passes = 0
        self.watcher: Callable[[Tensor], None] | None = None

    def train(self, mode: bool = True) -> "AdaptedViT":  # noqa: FBT001, FBT002 - torch's signature
        """Keeps the network in eval mode whatever `mode` says: dropout and buffers stay still."""
        self.training = mode
        for child in self.children():
            if child is not self.vit:
                child.train(mode)
        # Called often; setting a flag of a torch module costs far more than reading it.
        if any(each.training for each in self.vit.modules()):
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
    def num_prefix_tokens(self) -> int:
        """Number of class and register tokens, which stand in front of the patches."""
        return int(self.vit.num_prefix_tokens)

    @property
    def reads(self) -> str:
        """What of the tokens the features are: `class token`, or how all others are pooled."""
        pool = str(self.vit.global_pool)
        return "class token" if pool == "token" else f"{pool} of the patch tokens"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (C, S, S) of one image."""
        height, width = self.vit.patch_embed.img_size
        return self._channels, int(height), int(width)

    def site(self, slot: Slot, block: int) -> Site:
        """Returns what a PEFT module may be told about its place: widths and frozen weights.

        Raises:
            InputError: If there is no such block, or the slot lies inside an MLP that is not
                timm's plain one.
        """
        if not 0 <= block < self.num_blocks:
            raise InputError(
                f"block of slot {slot!r} must lie from 0 to {self.num_blocks - 1}, got {block}"
            )
        layer = linear_layer(self.vit.blocks[block], slot)
        if layer is None:
            return Site(slot, block, self.embed_dim, self.embed_dim, None)
        weight = layer.weight[self.embed_dim :] if slot == "key_value" else layer.weight
        return Site(slot, block, layer.in_features, len(weight), weight)

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
                refuse_infinite(images)  # here, since to look at them there would be to wait
            images = images.pin_memory()
        images = images.to(device, non_blocking=True)
        return scaled(images, self.pixels) if is_image else images

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
        images = scaled(images, self.pixels)
        if not images.is_floating_point():
            raise InputError(
                f"pixels must be floating-point numbers, scaled by a transform, got {images.dtype}"
            )
        if images.device.type == "cpu":
            refuse_infinite(images)
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
            tokens: (B, N, D). Output: (B, N, D); N grows by learned tokens that are kept.
        """
        blocks = self.vit.blocks
        filled_blocks = {} if adapters is None else adapters.blocks
        for index in range(*slice(start, stop).indices(len(blocks))):
            filled = filled_blocks.get(index)
            if filled is None:
                tokens = self._plain_block(blocks[index], tokens)
            elif "tokens" in filled:
                tokens = self._run_with_tokens(blocks[index], tokens, filled)
            else:
                tokens = self._adapted_block(blocks[index], tokens, filled)
        return tokens

    def _run_with_tokens(
        self, block: Block, stream: Tensor, filled: dict[Slot, Callable[..., Any]]
    ) -> Tensor:
        learned = filled["tokens"]
        rows: Tensor = learned()
        if getattr(learned, "position", "none") == "class":
            rows = rows + self._class_position()
        place = Place.of(learned, stream.shape[1], self.num_prefix_tokens)
        stream = self._adapted_block(block, inserted(stream, rows, place.index), filled)
        return stream if place.is_kept else removed(stream, rows.shape[-2], place.index)

    @property
    def has_class_position(self) -> bool:
        """Whether there is a class token, and a position vector for it."""
        vit = self.vit
        return not (vit.cls_token is None or vit.pos_embed is None or vit.no_embed_class)

    def _class_position(self) -> Tensor:
        if not self.has_class_position:
            raise InputError(
                "learned tokens must have `position` 'none' in a backbone whose class token has no "
                "position vector, got 'class'"
            )
        return cast("Tensor", self.vit.pos_embed[0, :1])

    def count_passes(self, count: int) -> None:
        """Counts images whose features were computed, or read where they had been kept."""
        if not torch.compiler.is_compiling():  # while a graph is made, it is no number
            self.num_passes += count

    def normed(self, tokens: Tensor) -> Tensor:
        """Normalises the tokens that leave the last block, and counts them as passes.

        Shape:
            tokens: (B, N, D). Output: (B, N, D).
        """
        self.count_passes(tokens.shape[0])
        return cast("Tensor", self.vit.norm(tokens))

    def features(self, tokens: Tensor, pool: slice | None = None) -> Tensor:
        """Normalises and pools the tokens that leave the last block.

        Args:
            tokens: (B, N, D).
            pool: Tokens whose mean is taken in place of what the network reads, as L2P takes that
                of its prompts.

        Shape:
            Output: (B, D).
        """
        normed = self.normed(tokens)
        if pool is None:
            found = cast("Tensor", self.vit.forward_head(normed, pre_logits=True))
        else:
            found = cast("Tensor", self.vit.fc_norm(normed[:, pool].mean(dim=1)))
        if self.watcher is not None:
            self.watcher(found)
        return found

    def features_of(self, images: Tensor, sets: Sequence[AdapterSet]) -> Tensor:
        """Returns the features that each of several sets sees, one set after the other.

        What lies before the first filled slot of any set is computed once, what lies after the
        last in one batch.

        Shape:
            images: (B, C, S, S). Output: (E * B, D).

        Raises:
            InputError: If there is no set.
        """
        if not sets:
            raise InputError("features must be asked for under at least one set, got none")
        filled = [each for each in sets if each.blocks]
        start = min((each.first_block for each in filled), default=0)
        stop = max((each.stop_block for each in filled), default=0)
        shared = self.run(self.tokens(images), 0, start)
        adapted = [self.run(shared, start, stop, adapters=each) for each in sets]
        if len({each.shape[1] for each in adapted}) > 1:  # some sets keep learned tokens
            return torch.cat([self.features(self.run(each, stop)) for each in adapted])
        tokens = adapted[0] if len(adapted) == 1 else torch.cat(adapted)
        return self.features(self.run(tokens, stop))

    def forward(self, images: Tensor, adapters: AdapterSet | None = None) -> Tensor:
        """Computes the features of images.

        Shape:
            images: (B, C, S, S). Output: (B, D).
        """
        return self.features(self.run(self.tokens(images), adapters=adapters))
