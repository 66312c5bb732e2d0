"""AdaptFormer: a narrow bottleneck beside the MLP that counts a tenth.

Reference: Shoufa Chen, Chongjian Ge, Zhan Tong, Jiangliu Wang, Yibing Song, Jue Wang, Ping Luo,
"AdaptFormer: Adapting Vision Transformers for Scalable Visual Recognition", NeurIPS 2022,
arXiv:2205.13535. With the authors' settings: width 64, no layer norm, s = 0.1, a tenth of the
middle dropped.

Parameters a block: 2 D R + R + D; 99,136 at D = 768 and R = 64.
"""

import torch

from cl_adapters.peft.bottleneck import Bottleneck

__all__ = ["adaptformer"]


def adaptformer(
    embed_dim: int,
    width: int,
    *,
    scale: float = 0.1,
    dropout: float = 0.1,
    generator: torch.Generator,
) -> Bottleneck:
    """Returns a new module: s * (W_up Dropout(ReLU(W_down x + b_down)) + b_up).

    With `scale=1` and `dropout=0` it is the kind `parallel`.

    Args:
        embed_dim: D, width of the stream.
        width: R, width of the middle; positive.
        scale: s.
        dropout: Share of the middle dropped in training, in [0, 1).
        generator: Source of the initial weights.
    """
    return Bottleneck(
        embed_dim, width, activation="relu", scale=scale, dropout=dropout, generator=generator
    )
