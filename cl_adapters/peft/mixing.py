"""Mixtures of several adapters: of what they put out, or of what they hold.

    outputs      sum_k w_k f(x; theta_k)
    parameters   f(x; sum_k w_k theta_k)

The two are the same where all adapters are, and where one has all of the weight; else products of
mixed factors hold terms of one adapter's factor and another's.

Shapes: B batch, N tokens, D width of the stream, R width of an adapter, K adapters, S splits.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from cl_adapters.peft.bottleneck import Bottleneck

__all__ = ["Output", "mix_outputs", "mix_parameters", "scale_outputs"]

Output = Tensor | tuple[Tensor, ...]


def mix_outputs(adapters: Sequence[nn.Module], tokens: Tensor, weights: Tensor) -> Output:
    """Returns the sum of the adapters' outputs, each times its weight for the image.

    Shape:
        tokens: (B, N, D). weights: (B, K). Output: (B, N, D), or two of them.
    """
    bottlenecks = [each for each in adapters if type(each) is Bottleneck and each.is_plain]
    if len(bottlenecks) == len(adapters):
        return _bottlenecks(bottlenecks, tokens, weights)
    return scale_outputs([each(tokens) for each in adapters], weights[:, None])


def scale_outputs(outputs: Sequence[Any], scales: Tensor) -> Output:
    """Returns the sum of outputs, each entry times its scale.

    Args:
        outputs: (B, N, D) of each adapter, or pairs of them, which are scaled alike.
        scales: (B, D, K), or (B, 1, K) with one for all entries; B may be 1.
    """
    if isinstance(outputs[0], tuple):
        parts = [scale_outputs(each, scales) for each in zip(*outputs, strict=True)]
        return tuple(cast("list[Tensor]", parts))
    shares = scales.to(outputs[0].dtype)[:, None]  # (B, 1, D, K)
    return torch.stack([shares[..., k] * each for k, each in enumerate(outputs)]).sum(dim=0)


def mix_parameters(
    adapters: Sequence[nn.Module],
    tokens: Tensor,
    weights: Tensor,
    cuts: Mapping[str, int] | None = None,
) -> Output:
    """Returns the output of an adapter whose parameters are weighted sums of the adapters' own.

    Args:
        adapters: Of one kind, with the same buffers.
        tokens: (B, N, D).
        weights: (B, S, K); with (1, S, K) all images share one adapter.
        cuts: The dimension, of length D, along which a parameter is cut into S parts with weights
            of their own; the others are mixed by the mean of the parts' weights.

    Shape:
        Output: (B, N, D), or two of them.
    """
    held = [dict(each.named_parameters()) for each in adapters]
    mixed = {
        name: _mixed([each[name] for each in held], weights, (cuts or {}).get(name))
        for name in held[0]
    }
    module = adapters[0]
    if weights.shape[0] == 1:
        one = {name: value[0] for name, value in mixed.items()}
        return cast("Output", functional_call(module, one, (tokens,)))
    one_image = partial(functional_call, module)
    found = vmap(lambda values, rows: one_image(values, (rows[None],)))(mixed, tokens)
    several = found if isinstance(found, tuple) else (found,)  # each (B, 1, N, D)
    whole = tuple(each[:, 0] for each in several)
    return whole if isinstance(found, tuple) else whole[0]


def _mixed(values: Sequence[Tensor], weights: Tensor, cut: int | None) -> Tensor:
    # (B, ...). Term by term, so that an adapter that has all of the weight stays as it is.
    shape = [1] * values[0].ndim
    if cut is None:
        shares = weights.mean(dim=1) if weights.shape[1] > 1 else weights[:, 0]  # (B, K)
    else:
        shape[cut] = values[0].shape[cut]
        shares = weights.repeat_interleave(shape[cut] // weights.shape[1], dim=1)  # (B, D, K)
    terms = [
        shares[..., k].reshape(weights.shape[0], *shape).to(each.dtype) * each
        for k, each in enumerate(values)
    ]
    return torch.stack(terms).sum(dim=0)


def _bottlenecks(adapters: Sequence[Bottleneck], tokens: Tensor, weights: Tensor) -> Tensor:
    # Frozen adapters apart from those in training, whose number does not grow: the weights of
    # the frozen get no gradient, so that adapter 20 costs little more to train than adapter 2.
    trained = [index for index, each in enumerate(adapters) if each.up.requires_grad]
    frozen = [index for index in range(len(adapters)) if index not in trained]
    parts = [
        _sum_of(
            [adapters[index] for index in group],
            tokens,
            torch.stack([weights[:, index] for index in group], dim=1),
        )
        for group in (frozen, trained)
        if group
    ]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _sum_of(adapters: Sequence[Bottleneck], tokens: Tensor, weights: Tensor) -> Tensor:
    # All in two products: their middles side by side, each scaled by its weight.
    down = torch.cat([each.down for each in adapters])  # (K R, D)
    down_bias = torch.cat([each.down_bias for each in adapters])
    up = torch.cat([each.up for each in adapters], dim=1)  # (D, K R)
    up_bias = torch.stack([each.up_bias for each in adapters])  # (K, D)
    hidden = functional.relu(functional.linear(tokens, down, down_bias))  # (B, N, K R)
    shares = weights.to(hidden.dtype)
    width = adapters[0].down.shape[0]
    hidden = hidden * shares.repeat_interleave(width, dim=1)[:, None]
    return functional.linear(hidden, up) + (shares @ up_bias.to(shares.dtype))[:, None]
