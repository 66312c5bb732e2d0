"""Weight aligning: rows of new classes get the mean length of those of old ones.

Reference: Bowen Zhao, Xi Xiao, Guojun Gan, Bin Zhang, Shu-Tao Xia, "Maintaining Discrimination and
Fairness in Class Incremental Learning", CVPR 2020; after PyCIL, since the authors' code was not
found. After every experience but the first

    w_c <- gamma w_c for new classes c,  gamma = mean |w_old| / mean |w_new|

and biases stay as they are. It reads no data. The paper clips weights to be positive in training as
well, which neither PyCIL nor this does, and its distillation loss is not here.
"""

from collections.abc import Collection
from typing import cast

import torch
from torch import nn

from cl_adapters.heads.linear import ExperienceHeads

__all__ = ["align_weights"]


@torch.no_grad()
def align_weights(heads: ExperienceHeads, new: Collection[int]) -> float:
    """Scales the rows of new classes, in place; returns gamma, 1 where there is nothing to compare.

    Args:
        heads: With a row for each class, whose length matters: not those of cosines.
        new: The classes of the last experience that had not been seen before.

    Example:
        >>> heads = ExperienceHeads(1)
        >>> heads.add_classes([0, 1], torch.Generator())
        >>> heads.add_classes([2, 3], torch.Generator())
        >>> _ = heads.layers[0].weight.data.copy_(torch.tensor([[1.0], [-3.0]]))
        >>> _ = heads.layers[1].weight.data.copy_(torch.tensor([[4.0], [4.0]]))
        >>> align_weights(heads, [2, 3]), heads.layers[1].weight.flatten().tolist()
        (0.5, [2.0, 2.0])
    """
    layers = cast("list[nn.Linear]", list(heads.layers))
    is_new = torch.tensor([label in new for label in heads.classes])
    if not is_new.any() or is_new.all():
        return 1.0
    lengths = torch.cat([layer.weight.norm(dim=1) for layer in layers]).cpu()
    length = float(lengths[is_new].mean())
    if length == 0:  # rows that learned nothing have no direction to scale
        return 1.0
    gamma = float(lengths[~is_new].mean()) / length
    sizes = [layer.out_features for layer in layers]
    for layer, rows in zip(layers, torch.split(is_new, sizes), strict=True):
        layer.weight[rows.to(layer.weight.device)] *= gamma
    return gamma
