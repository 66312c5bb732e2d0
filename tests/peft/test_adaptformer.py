"""AdaptFormer with the authors' settings, and the compander, against plain arithmetic."""

import math

import pytest
import torch
from torch import nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adaptformer import adaptformer
from cl_adapters.peft.bottleneck import Bottleneck
from cl_adapters.peft.compander import Companded, companded, companded_bottleneck, expanded
from cl_adapters.peft.registry import PEFTS
from cl_adapters.peft.stack import AdapterStack


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def test_adaptformer_by_hand_and_against_loops() -> None:
    module = adaptformer(2, 1, generator=seeded()).eval()
    module.down.copy_(torch.tensor([[1.0, -1.0]]))
    module.down_bias.fill_(0.5)
    module.up.copy_(torch.tensor([[2.0], [1.0]]))
    torch.testing.assert_close(module(torch.tensor([[[3.0, 1.0]]])), torch.tensor([[[0.5, 0.25]]]))
    module = adaptformer(3, 2, generator=seeded()).eval()
    for value in module.parameters():
        nn.init.normal_(value, generator=seeded(1))
    x = torch.randn(2, 4, 3, generator=seeded(2))
    for image, token in ((i, t) for i in range(2) for t in range(4)):
        row = x[image, token].tolist()
        sums = [
            sum(float(w) * v for w, v in zip(weights, row, strict=True)) + float(bias)
            for weights, bias in zip(module.down, module.down_bias, strict=True)
        ]
        hidden = [max(each, 0.0) for each in sums]
        for d in range(3):
            y = sum(float(module.up[d, r]) * hidden[r] for r in range(2)) + float(module.up_bias[d])
            assert module(x)[image, token, d].item() == pytest.approx(0.1 * y, abs=1e-5)


def test_adaptformer_drops_a_tenth_of_its_middle_in_training_only() -> None:
    module = adaptformer(2, 1, generator=seeded())
    with torch.no_grad():
        module.down.fill_(1.0)
        module.up.fill_(10.0)
    ones = torch.ones(1, 4000, 2)  # hidden 2, output 2 or, dropped, 0
    outputs = module(ones)[0, :, 0]
    assert outputs.detach().unique().tolist() == [0.0, pytest.approx(2 / 0.9)]
    deviation = 2 / 0.9 * math.sqrt(0.1 * 0.9 / 4000)
    assert outputs.mean().item() == pytest.approx(2, abs=3 * deviation)
    assert module.eval()(ones).unique().tolist() == [2.0]


def test_adaptformer_is_parallel_but_for_scale_and_dropout() -> None:
    ours = adaptformer(32, 16, scale=1, dropout=0, generator=seeded(3))
    parallel = PEFTS["parallel"].build(32, 16, seeded(3))
    for module in (ours, parallel):
        nn.init.normal_(module.up, generator=seeded(1))  # type: ignore[arg-type]
    x = torch.randn(2, 5, 32, generator=seeded(2))
    assert torch.equal(ours(x), parallel(x))
    built = PEFTS["adaptformer"].build(32, 16, seeded(3), scale=1.0, dropout=0.0)
    assert isinstance(built, Bottleneck)
    assert (float(built.scale), built.dropout) == (pytest.approx(0.1), 0.1)
    stack = AdapterStack.build(PEFTS["adaptformer"], embed_dim=8, blocks=2, generator=seeded())
    assert stack.template.is_bottleneck, "served by batched products"


def test_companded_weights_are_bounded_and_keep_zero() -> None:
    values = torch.tensor([0.1, 1.0, 10.0, 0.0, -1e6], requires_grad=True)
    found = companded(values, 1.5, 1.5)
    expected = torch.tensor([0.0999, 0.8820, 2.1329, 0.0])
    torch.testing.assert_close(found[:4].detach(), expected, atol=5e-5, rtol=0)
    assert found.abs().max() < 1.5 * math.pi / 2
    torch.testing.assert_close(expanded(found[:4], 1.5, 1.5), values[:4])
    (slopes,) = torch.autograd.grad(found.sum(), values)
    expected = torch.tensor([0.9956, 0.6923, 0.0220, 1.0])
    torch.testing.assert_close(slopes[:4], expected, atol=5e-5, rtol=0)
    (slope,) = torch.autograd.grad(companded(values, 3.0, 1.5)[3], values)
    assert slope[3] == 2


def test_a_companded_module_computes_with_companded_matrices_and_plain_biases() -> None:
    module = companded_bottleneck(4, 3, generator=seeded())
    plain = Bottleneck(4, 3, activation="relu", scale=1.0, generator=seeded())
    with torch.no_grad():
        for inner, own in zip(module.module.parameters(), plain.parameters(), strict=True):
            own.normal_(std=2, generator=seeded(own.numel()))
            inner.copy_(expanded(own, 50.0, 40.0) if own.ndim > 1 else own)
    module.bound, module.slope = 50.0, 40.0
    x = torch.randn(2, 3, 4, generator=seeded(1))
    torch.testing.assert_close(module(x), plain(x))


def test_bound_and_slope_are_learned_where_they_are_to_be() -> None:
    module = Companded(Bottleneck(4, 3, generator=seeded()), learns=True)
    nn.init.normal_(module.module.up, generator=seeded(1))  # type: ignore[arg-type]
    module(torch.randn(2, 3, 4, generator=seeded(2))).sum().backward()
    assert module.bound.grad is not None  # type: ignore[union-attr]
    assert module.slope.grad.abs() > 0  # type: ignore[union-attr]
    with pytest.raises(InputError, match="`slope` must be positive, got 0"):
        Companded(nn.Linear(2, 2), slope=0)
