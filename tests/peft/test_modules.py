"""PEFT modules against hand arithmetic and the paper's parameter counts."""

import math

import pytest
import torch
from torch import nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.bottleneck import Bottleneck
from cl_adapters.peft.lora import KeyValueLoRA
from cl_adapters.peft.prefix import Prefix
from cl_adapters.peft.registry import build_adapters


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def test_bottleneck_equals_plain_loops() -> None:
    module = Bottleneck(3, 2, activation="gelu", generator=seeded())
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=seeded(1))
    x = torch.randn(1, 4, 3, generator=seeded(2))
    for n in range(4):
        hidden = []
        for r in range(2):
            z = sum(float(module.down[r, d] * x[0, n, d]) for d in range(3))
            z += float(module.down_bias[r])
            hidden.append(z * 0.5 * (1 + math.erf(z / math.sqrt(2))))  # exact GELU
        for d in range(3):
            y = sum(float(module.up[d, r]) * hidden[r] for r in range(2)) + float(module.up_bias[d])
            assert module(x)[0, n, d].item() == pytest.approx(float(module.scale) * y, abs=1e-5)


def test_a_fixed_scale_is_not_learned_and_a_free_one_is() -> None:
    fixed = Bottleneck(4, 2, activation="relu", scale=0.1, generator=seeded())
    free = Bottleneck(4, 2, generator=seeded())
    assert {name for name, _ in fixed.named_parameters()} == {"down", "down_bias", "up", "up_bias"}
    assert "scale" in dict(free.named_parameters())
    nn.init.ones_(fixed.up)
    nn.init.ones_(free.up)
    nn.init.ones_(fixed.down_bias)
    nn.init.ones_(free.down_bias)
    free.activation = "relu"
    x = torch.rand(2, 3, 4)
    torch.testing.assert_close(fixed(x), 0.1 * free(x))


def test_dropout_acts_in_train_mode_only() -> None:
    module = Bottleneck(8, 64, dropout=0.5, generator=seeded())
    nn.init.normal_(module.up, generator=seeded(1))
    x = torch.randn(2, 3, 8)
    assert torch.equal(module.eval()(x), module(x))
    assert not torch.equal(module.train()(x), module(x))


@pytest.mark.parametrize(
    ("name", "expected"), [("adapter", 42_270), ("lora", 76_810), ("prefix", 76_810)]
)
def test_parameter_counts_are_those_of_laes_code_at_width_768(name: str, expected: int) -> None:
    adapters = build_adapters(name, embed_dim=768, blocks=range(5), generator=seeded())
    assert sum(value.numel() for value in adapters.parameters()) == expected


@torch.no_grad()
def test_initial_values_follow_the_paper() -> None:
    adapter = Bottleneck(768, 5, generator=seeded())
    bound = 1 / math.sqrt(768)  # kaiming-uniform with a = sqrt 5
    assert float(adapter.down.abs().max()) == pytest.approx(bound, rel=0.01)
    assert not adapter.up.any()
    assert not adapter.up_bias.any()
    lora = KeyValueLoRA(768, 5, generator=seeded())
    assert not lora.key_up.any()
    assert not lora.value_up.any()
    prefix = Prefix(768, 10, generator=seeded())
    assert float(prefix.keys.min()) >= 0
    assert 0.0099 < float(prefix.keys.max()) < 0.01
    assert [float(prefix.key_scale), float(lora.value_scale), float(adapter.scale)] == [1, 1, 1]


@pytest.mark.parametrize("name", ["adapter", "lora", "prefix"])
def test_initial_weights_come_from_the_generator_alone(name: str) -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    one = build_adapters(name, embed_dim=16, blocks=[0, 2], generator=seeded(5))
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(2)
    two = build_adapters(name, embed_dim=16, blocks=[0, 2], generator=seeded(5))
    other = build_adapters(name, embed_dim=16, blocks=[0, 2], generator=seeded(6))
    pairs = list(zip(one.parameters(), two.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


def test_a_set_knows_its_slots() -> None:
    module = Bottleneck(4, 2, generator=seeded())
    adapters = AdapterSet({("mlp", 3): module, ("attention", 1): module})
    assert list(adapters) == [("mlp", 3), ("attention", 1)]
    assert adapters.at("mlp", 3) is module
    assert adapters.at("mlp", 1) is None
    assert adapters.touches(1)
    assert not adapters.touches(2)
    assert adapters.first_block == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Bottleneck(4, 0, generator=seeded()), "`width` must be a positive integer, got 0"),
        (lambda: KeyValueLoRA(4, -1, generator=seeded()), "`rank` must be a positive .*, got -1"),
        (lambda: Prefix(4, 0, generator=seeded()), "`length` must be a positive integer, got 0"),
        (
            lambda: Bottleneck(4, 2, dropout=1.0, generator=seeded()),
            r"`dropout` must lie in \[0, 1\), got 1.0",
        ),
        (
            lambda: build_adapters("lorra", embed_dim=4, blocks=[0], generator=seeded()),
            "unknown peft 'lorra'; did you mean 'lora'",
        ),
        (lambda: AdapterSet({("mlpp", 0): nn.Identity()}), "unknown slot 'mlpp'"),  # type: ignore[dict-item]
        (lambda: AdapterSet({("mlp", -1): nn.Identity()}), "must not be negative, got -1"),
    ],
)
def test_bad_sizes_and_names_are_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        call()


@torch.no_grad()
def test_lora_scales_its_keys_and_its_values_each_by_its_own_factor() -> None:
    module = KeyValueLoRA(3, 2, generator=seeded())
    for value in module.parameters():
        nn.init.normal_(value, generator=seeded(value.numel()))
    module.key_scale.fill_(2.0)
    module.value_scale.fill_(-5.0)
    x = torch.randn(1, 4, 3, generator=seeded(2))
    for found, side, scale in zip(module(x), ("key", "value"), (2.0, -5.0), strict=True):
        weight = getattr(module, f"{side}_up") @ getattr(module, f"{side}_down")
        for n in range(4):
            torch.testing.assert_close(found[0, n], scale * (weight @ x[0, n]))
