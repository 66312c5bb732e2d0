"""Attention, and a way through it that trains faster in bfloat16 on a CPU.

PyTorch's fused attention for CPUs goes back slowly in bfloat16: on a ViT-Tiny that alone is a third
to a half of a training step (docs/speed.md has the times). Here are two matrix products forward and
four back. The scores stay in float32 until they are probabilities, so that features and gradients
are as near to those of float32. Answers, GPUs and other types take the fused way.

Shapes: B batch, H heads, N query tokens, M key tokens, D width of a head.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["attention", "is_written_out"]


def is_written_out(tokens: Tensor) -> bool:
    """Whether gradients through the attention of these tokens are quicker without the fused one."""
    return (
        tokens.device.type == "cpu"
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and (tokens.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu"))
    )


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Returns softmax(query key^T / sqrt(D)) value.

    Shape:
        query: (B, H, N, D). key, value: (B, H, M, D). Output: (B, H, N, D).
    """
    # Of `query`, since autocast has made bfloat16 of float32 there.
    needs_gradients = query.requires_grad or key.requires_grad or value.requires_grad
    if needs_gradients and query.dtype == torch.bfloat16 and is_written_out(query):
        flat = (each.reshape(-1, *each.shape[-2:]) for each in (query, key, value))
        return cast("Tensor", WrittenOut.apply(*flat)).view(query.shape)
    return functional.scaled_dot_product_attention(query, key, value)


class WrittenOut(torch.autograd.Function):
    """Attention by matrix products: scores in float32, weights kept in the type of the values.

    Shape:
        query: (B, N, D). key, value: (B, M, D). Output: (B, N, D).
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        """Returns the mixed values."""
        precise = torch.promote_types(query.dtype, torch.float32)
        with torch.autocast("cpu", enabled=False):
            scores = (query.to(precise) * query.shape[-1] ** -0.5) @ key.to(precise).mT
            weights = scores.softmax(dim=-1).to(value.dtype)
            ctx.save_for_backward(query, key, value, weights)
            return cast("Tensor", weights @ value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401 - torch's
        """Returns the gradients of query, key and value."""
        query, key, value, weights = ctx.saved_tensors
        scale = query.shape[-1] ** -0.5
        # One pass in float32, as autograd itself takes it.
        softmax_backward = torch.ops.aten._softmax_backward_data.default  # noqa: SLF001
        of_weights = gradient @ value.mT
        of_scores = softmax_backward(of_weights, weights, -1, weights.dtype)
        of_query = (of_scores @ key).mul_(scale)
        of_key = (of_scores.mT @ query).mul_(scale)
        return of_query, of_key, weights.mT @ gradient
