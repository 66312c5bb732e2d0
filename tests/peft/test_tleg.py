"""Adapters on a line over depth against the line, and against bottlenecks."""

import copy

import pytest
import torch
from torch import nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.bottleneck import Bottleneck
from cl_adapters.peft.registry import PEFTS, build_adapters
from cl_adapters.peft.stack import AdapterStack
from cl_adapters.peft.tleg import Line, OnLine, on_a_line


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(blocks: int) -> nn.ModuleList:
    modules = nn.ModuleList(on_a_line(8, 3, blocks=blocks, generator=seeded()))
    for number, value in enumerate(modules.parameters()):
        value.data.normal_(generator=seeded(number))
    return modules


X = torch.randn(2, 5, 8, generator=seeded(9))


@torch.no_grad()
def test_each_block_is_a_bottleneck_on_the_line() -> None:
    modules = trained(4)
    line = modules[0].line
    assert isinstance(line, Line)
    for block, module in enumerate(modules):
        expected = Bottleneck(8, 3, activation="relu", scale=1.0, generator=seeded())
        for name, value in expected.named_parameters():
            value.copy_(line.base[name] + block / 4 * line.slope[name])
        torch.testing.assert_close(module(X), expected(X))


def test_the_slopes_gradient_is_the_weighted_sum_over_blocks() -> None:
    modules, apart = trained(3), []
    for module in modules:
        weights = {
            k: v.detach().requires_grad_() for k, v in modules[0].line.at(module.share).items()
        }
        hidden = (X @ weights["down"].T + weights["down_bias"]).relu()
        (hidden @ weights["up"].T + weights["up_bias"]).square().sum().backward()
        apart.append(weights)
    sum(module(X).square().sum() for module in modules).backward()
    for name, slope in modules[0].line.slope.items():
        expected = sum(block / 3 * each[name].grad for block, each in enumerate(apart))
        torch.testing.assert_close(slope.grad, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_it_expands_to_twice_the_blocks() -> None:
    few, many = trained(3), nn.ModuleList(on_a_line(8, 3, blocks=6, generator=seeded(7)))
    many[0].load_state_dict(few[0].state_dict())
    for block in range(3):
        torch.testing.assert_close(many[2 * block](X), few[block](X))


def test_a_set_holds_its_line_once_and_a_copy_has_its_own() -> None:
    adapters = build_adapters("tleg", embed_dim=768, blocks=range(12), generator=seeded())
    held = adapters.state_dict()
    assert sum(value.numel() for value in held.values()) == 50_720
    assert sum(value.numel() for value in adapters.parameters()) == 50_720
    twin = copy.deepcopy(adapters)
    for value in twin.parameters():
        value.data.fill_(0.1)
    x = torch.randn(1, 2, 768, generator=seeded(1))
    for block in (0, 11):
        one, two = adapters.at("mlp", block), twin.at("mlp", block)
        assert isinstance(one, OnLine)
        assert isinstance(two, OnLine)
        assert not one(x).any(), "new modules change nothing"
        assert two(x).any()


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(
        InputError, match="a stored set must hold another kind .*: its blocks share"
    ):
        AdapterStack.build(PEFTS["tleg"], embed_dim=8, blocks=2, generator=seeded())
    with pytest.raises(InputError, match="`width` must be a positive integer, got 0"):
        on_a_line(8, 0, blocks=2, generator=seeded())
    assert isinstance(AdapterSet({("mlp", 0): trained(1)[0]}).at("mlp", 0), OnLine)
