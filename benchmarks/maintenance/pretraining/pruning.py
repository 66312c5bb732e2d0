"""Cuts a small ViT for small images out of a larger one, as a start for distillation.

Kept are the first blocks and, of each MLP, the hidden units with the largest weights. The patch
embedding is folded with the enlargement of a small patch to the teacher's patch size: the network
sees of a 32-pixel image about what the teacher would see of it at 128 pixels. After "Initializing
Models with Larger Ones" (Xu et al., ICLR 2024, arXiv:2311.18823), which finds the first blocks the
best start.
"""

from collections.abc import Mapping

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor
from torch.nn import functional

__all__ = ["prune"]


def prune(
    state: Mapping[str, Tensor], *, depth: int, hidden: int, patch_size: int, grid: int
) -> dict[str, Tensor]:
    """Returns the weights of a smaller network of the same width, without a head.

    Args:
        state: Weights of a timm `VisionTransformer` with a class token.
        depth: Number of blocks to keep.
        hidden: Hidden units of each MLP to keep.
        patch_size: Side of the new patches in pixels.
        grid: Patches along a side of the new images.
    """
    kept = {k: v.clone() for k, v in state.items() if not k.startswith(("blocks.", "head."))}
    kept["patch_embed.proj.weight"] = _fold(state["patch_embed.proj.weight"], patch_size)
    # Cloned, since timm hands out the given tensor where nothing is to be resampled.
    kept["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], (grid, grid)).clone()
    for index in range(depth):
        prefix = f"blocks.{index}."
        block = {k: v for k, v in state.items() if k.startswith(prefix)}
        fc1, fc2 = (block[f"{prefix}mlp.{name}.weight"] for name in ("fc1", "fc2"))
        units = (fc1.norm(dim=1) * fc2.norm(dim=0)).topk(hidden).indices.sort().values
        for name in ("fc1.weight", "fc1.bias"):
            block[f"{prefix}mlp.{name}"] = block[f"{prefix}mlp.{name}"][units]
        block[f"{prefix}mlp.fc2.weight"] = fc2[:, units]
        kept |= {k: v.clone() for k, v in block.items()}
    return kept


def _fold(kernel: Tensor, side: int) -> Tensor:
    """Returns the kernel (D, 3, side, side) that acts like `kernel` on an enlarged patch."""
    large = kernel.shape[2:]
    basis = torch.eye(side * side).view(-1, 1, side, side)
    enlarge = functional.interpolate(basis, large, mode="bicubic", align_corners=False).flatten(1)
    return (kernel.flatten(2) @ enlarge.T).view(*kernel.shape[:2], side, side)
