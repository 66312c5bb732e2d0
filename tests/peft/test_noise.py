"""Randomness in training comes from a generator that is handed out; frozen modules draw nothing."""

import pytest
import torch
from torch import Tensor, nn

from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.bottleneck import Bottleneck
from cl_adapters.peft.frozen import eval_frozen, frozen_parts
from cl_adapters.peft.noise import PeftNoise, dropout, hand_out
from cl_adapters.peft.routing import ExpandableSlot
from cl_adapters.peft.stack import AdapterStack


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dropping(seed: int = 0) -> Bottleneck:
    module = Bottleneck(8, 32, dropout=0.5, generator=seeded(seed))
    nn.init.normal_(module.up, generator=seeded(1))
    return module


def test_modules_of_a_set_draw_from_the_generator_that_they_are_handed() -> None:
    adapters = AdapterSet({("mlp", 0): dropping(), ("mlp", 3): dropping()})
    inputs = torch.randn(2, 3, 8, generator=seeded(2))

    def outputs() -> list[Tensor]:
        return [adapters.at("mlp", block)(inputs) for block in (0, 3)]  # type: ignore[misc]

    hand_out(adapters, seeded(5))
    before = torch.random.get_rng_state()
    first = outputs()
    assert torch.equal(before, torch.random.get_rng_state()), "not from the global source"
    assert not torch.equal(*first), "one after the other, from one generator"
    hand_out(adapters, seeded(5))
    assert all(map(torch.equal, first, outputs()))
    hand_out(adapters, None)
    torch.manual_seed(3)
    once = outputs()
    torch.manual_seed(3)
    assert all(map(torch.equal, once, outputs()))


def test_dropout_keeps_what_it_does_not_drop_and_its_mean() -> None:
    ones = torch.ones(100, 100)
    for noise in (seeded(), None):
        torch.manual_seed(0)
        found = dropout(ones, 0.2, noise)
        assert set(found.unique().tolist()) == {0.0, 1.25}
        assert found.mean().item() == pytest.approx(1, abs=0.02)


class Jitter(nn.Module):
    """A stranger's module that draws, and another's whose `noise` is a tensor."""

    def __init__(self, *, is_tensor: bool = False) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(8))
        self.noise: torch.Generator | None = None
        if is_tensor:
            del self.noise
            self.register_buffer("noise", torch.ones(8))

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or isinstance(self.noise, Tensor):
            return inputs * self.gain
        return inputs * self.gain + torch.randn(8, generator=self.noise)


def test_a_stack_hands_its_generator_to_any_kind_that_draws() -> None:
    stack = AdapterStack([Jitter(), Jitter()], "mlp")
    inputs = torch.ones(1, 2, 8)
    hand_out(stack, seeded(4))
    draws = seeded(4)
    for block in (0, 1):
        found = stack.adapters().at("mlp", block)(inputs)  # type: ignore[misc]
        torch.testing.assert_close(found, inputs + torch.randn(8, generator=draws))
    stack.eval()
    assert torch.equal(stack.adapters().at("mlp", 0)(inputs), inputs)  # type: ignore[misc]


def test_a_tensor_of_the_name_is_left_alone() -> None:
    module = Jitter(is_tensor=True)
    hand_out(module, seeded())
    assert torch.equal(module.noise, torch.ones(8))  # type: ignore[arg-type]


def test_frozen_adapters_are_called_in_eval_mode_and_the_others_in_train_mode() -> None:
    slot = ExpandableSlot(8, 2, router="learned")
    for seed in range(3):
        slot.add_adapter(seeded(seed))
    adapters = AdapterSet({("mlp", 0): dropping(), ("mlp", 1): dropping(), ("mlp", 2): slot})
    adapters.requires_grad_(requires_grad=False)
    for value in [*slot.newest_parameters(), *adapters.at("mlp", 1).parameters()]:  # type: ignore[union-attr]
        value.requires_grad = True
    adapters.train()
    found = eval_frozen(adapters)
    frozen = [adapters.at("mlp", 0), *slot.adapters[:2], *slot.columns[:2]]
    assert set(map(id, found)) == set(map(id, frozen))
    assert not any(each.training for each in found)
    assert all(each.training for each in (adapters, adapters.at("mlp", 1), slot.adapters[2]))
    inputs = torch.randn(2, 3, 8, generator=seeded(2))
    first = adapters.at("mlp", 0)
    assert first is not None
    assert torch.equal(first(inputs), first(inputs)), "what is frozen draws nothing"


def test_all_or_nothing_may_be_frozen() -> None:
    adapters = AdapterSet({("mlp", 0): dropping(), ("mlp", 1): nn.Identity()})
    assert frozen_parts(adapters) == []
    adapters.requires_grad_(requires_grad=False)
    assert frozen_parts(adapters) == [adapters]
    stack = AdapterStack([dropping(), dropping()], "mlp")
    stack.requires_grad_(requires_grad=False)
    stack.train()
    assert eval_frozen(stack) == [stack]
    inputs = torch.ones(1, 2, 8)
    one, two = (stack.adapters().at("mlp", 0)(inputs) for _ in range(2))  # type: ignore[misc]
    assert torch.equal(one, two)


def test_modules_that_are_handed_nothing_else_get_a_generator_an_experience() -> None:
    own = AdapterStack([dropping(), dropping()], "mlp")
    model = nn.ModuleList([own, dropping()])
    noise, mine, first, second = PeftNoise(), seeded(1), seeded(2), seeded(3)
    assert noise.sources(model) == {}
    hand_out(own, mine)
    noise.renew(model, first)
    assert [each.noise for each in model] == [mine, first]
    model.append(dropping())
    noise.hand_out(model)
    assert [each.noise for each in model] == [mine, first, first]
    assert noise.sources(model) == {"peft": first}
    noise.renew(model, second)
    assert [each.noise for each in model] == [mine, second, second]
    assert noise.sources(own) == {}
