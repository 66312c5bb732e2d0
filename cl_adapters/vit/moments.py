"""Second moments of what attention is given in each block."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.reweighted import features_under

__all__ = ["input_moments"]


@torch.no_grad()
def input_moments(
    backbone: AdaptedViT,
    weights: Mapping[str, Tensor],
    blocks: Sequence[int],
    batches: Iterable[Tensor],
) -> list[Tensor]:
    """Returns E[u u'] of the inputs u of attention in some blocks, over all tokens of all images.

    Args:
        backbone: The network, of which each image takes one pass.
        weights: What stands in for its own, by their names in it.
        blocks: Which blocks.
        batches: Images, (B, C, S, S) each.

    Returns:
        (D, D) for each block, in float64 on the CPU.

    Raises:
        InputError: If there is no image.
    """
    size = backbone.embed_dim
    sums = {block: torch.zeros(size, size, dtype=torch.float64) for block in blocks}
    counts = dict.fromkeys(blocks, 0)

    def look(block: int, inputs: Tensor) -> float:
        rows = inputs.flatten(0, 1).float()
        with torch.autocast(rows.device.type, enabled=False):
            sums[block] += (rows.T @ rows).double().cpu()
        counts[block] += len(rows)
        return 0.0  # adds nothing

    watch = AdapterSet({("attention", each): partial(look, each) for each in blocks})
    for images in batches:
        features_under(backbone, weights, images, watch)
    if not all(counts.values()):
        raise InputError("moments of inputs must be taken from at least one image, got none")
    return [sums[block] / counts[block] for block in blocks]
