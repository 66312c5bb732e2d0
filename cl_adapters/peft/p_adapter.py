"""p-adapter: attention as a graph of queries and values, on which features are passed once more.

Reference: Haoyuan Wu, Xinyun Zhang, Peng Xu, Peiyu Liao, Xufeng Yao, Bei Yu, "p-Laplacian
Adaptation for Generative Pre-trained Vision-Language Models", AAAI 2024, arXiv:2312.10613.
Published for networks of images and text.

What differs from the authors' code: self-attention gets the graph of two sides, which theirs has in
cross-attention alone, since its form for self-attention passes each node itself back; W_o starts at
zero, where theirs starts as torch does; no N x N x R numbers are made for the distances.

Parameters a block, D width of the stream, R of the middle: 3 D R + 2 R + D + 1; 222,145 at D = 768
and R = 96.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError, check_positive
from cl_adapters.peft.initial import uniform_rows

__all__ = ["PAdapter", "passed"]

_NEAREST = 1e-4  # distance below which two nodes count as that far apart


def passed(shares: Tensor, query: Tensor, value: Tensor, p: float, mu: Tensor) -> Tensor:
    """Returns sum_j w_ij v_j / (sum_j w_ij + 2 mu / p), w_ij = P_ij (sqrt(P_ij) |q_i - v_j|)^(p-2).

    Shape:
        shares: P, (..., N, M). query: q, (..., N, R). value: v, (..., M, R). Output: (..., N, R).
    """
    squares = query.square().sum(dim=-1)[..., None] + value.square().sum(dim=-1)[..., None, :]
    squares = squares - 2 * query @ value.transpose(-1, -2)
    apart = squares.clamp_min(_NEAREST**2) ** ((p - 2) / 2)
    # A power below 1 has no finite slope at 0, which shares may reach in float32.
    weights = shares.clamp_min(1e-12) ** (p / 2) * apart
    return weights @ value / (weights.sum(dim=-1, keepdim=True) + 2 * mu / p)


class PAdapter(nn.Module):
    """An update W_o (GELU(W_g y) * out) of what attention gave, y, with `passed` as out.

    For the slot `attention_graph`. Queries and values enter through one layer W_i and are split
    among the heads; a width that the heads do not divide is filled up with zeros.

    Args:
        embed_dim: D, width of the stream.
        width: R, width of the middle; positive.
        p: Of the p-Laplacian, in (1, 2]; 2 is plain attention.
        mu: Half of the start of the weight of the denominator's second term; positive.
        generator: Source of the initial weights.

    Raises:
        InputError: If the width is not positive, or p or mu lies outside its range.
    """

    def __init__(
        self,
        embed_dim: int,
        width: int,
        *,
        p: float = 1.5,
        mu: float = 0.1,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        check_positive("width", width)
        if not 1 < p <= 2:
            raise InputError(f"`p` must lie in (1, 2], got {p}")
        if not mu > 0:
            raise InputError(f"`mu` must be positive, got {mu}")
        self.p, self.mu = p, mu
        self.node = uniform_rows(width, embed_dim, generator)
        self.node_bias = nn.Parameter(torch.zeros(width))
        self.gate = uniform_rows(width, embed_dim, generator)
        self.gate_bias = nn.Parameter(torch.zeros(width))
        self.up = nn.Parameter(torch.zeros(embed_dim, width))
        self.up_bias = nn.Parameter(torch.zeros(embed_dim))
        self.balance = nn.Parameter(torch.zeros(()))

    def forward(self, shares: Tensor, query: Tensor, value: Tensor, output: Tensor) -> Tensor:
        """Returns what is added to attention's output.

        Shape:
            shares: (B, H, N, N). query, value, output: (B, N, D). Output: (B, N, D).
        """
        heads = shares.shape[1]
        query, value = (self._nodes(each, heads) for each in (query, value))
        mu = self.mu * (2 + torch.tanh(self.balance))
        with torch.autocast(output.device.type, enabled=False):
            out = passed(shares.float(), query.float(), value.float(), self.p, mu)
        out = out.transpose(1, 2).flatten(2)[..., : len(self.node)]
        gate = functional.gelu(functional.linear(output, self.gate, self.gate_bias))
        return functional.linear(gate * out, self.up, self.up_bias)

    def _nodes(self, tokens: Tensor, heads: int) -> Tensor:
        found = functional.linear(tokens, self.node, self.node_bias)
        found = functional.pad(found, (0, -found.shape[-1] % heads))
        return found.view(*found.shape[:2], heads, -1).transpose(1, 2)  # (B, H, N, R / H)
