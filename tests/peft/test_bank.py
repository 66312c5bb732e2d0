"""Stacked adapters against one plain bottleneck after the other."""

import pytest
import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.bank import AdapterBank, AdapterStack
from cl_adapters.peft.bottleneck import Bottleneck
from cl_adapters.peft.registry import PEFTS
from cl_adapters.vit.adapted_vit import AdaptedViT

BLOCKS, DIM, WIDTH = 6, 64, 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fresh_stack(blocks: int, seed: int = 0, dropout: float = 0.0) -> AdapterStack:
    draws = seeded(seed)
    options = {"activation": "relu", "scale": 0.1, "dropout": dropout, "generator": draws}
    return AdapterStack([Bottleneck(DIM, WIDTH, **options) for _ in range(blocks)], "mlp")


def randomised(stack: AdapterStack, seed: int) -> AdapterStack:
    with torch.no_grad():
        for value in stack.tensors():
            value.normal_(generator=seeded(seed + 100))
    return stack


def random_stack(seed: int, dropout: float = 0.0) -> AdapterStack:
    return randomised(fresh_stack(BLOCKS, seed, dropout), seed)


def bank_of(stacks: list[AdapterStack]) -> AdapterBank:
    bank = AdapterBank(stacks[0])
    for stack in stacks:
        bank.append(stack.tensors())
    return bank


def plain(stack: AdapterStack, block: int) -> Bottleneck:
    module = Bottleneck(
        DIM, WIDTH, activation="relu", scale=0.1, dropout=stack.template.dropout, generator=seeded()
    )
    with torch.no_grad():
        for name, value in zip(
            ("down", "down_bias", "up", "up_bias"), stack.tensors(), strict=True
        ):
            getattr(module, name).copy_(value[block])
    return module.eval()


def plain_set(stack: AdapterStack) -> AdapterSet:
    return AdapterSet({("mlp", block): plain(stack, block) for block in range(BLOCKS)})


def test_a_stack_starts_as_plain_adapters_drawn_block_after_block() -> None:
    stack = fresh_stack(3, seed=5)
    draws = seeded(5)
    for block in range(3):
        fresh = Bottleneck(DIM, WIDTH, activation="relu", generator=draws)
        assert torch.equal(stack.tensors()[0][block], fresh.down)
    assert all(bool((value == 0).all()) for value in stack.tensors()[1:])


def test_a_stack_equals_plain_adapters_and_learns_their_gradients(tiny_vit: AdaptedViT) -> None:
    stack = random_stack(1).eval()
    images = torch.randn(3, 3, 32, 32, generator=seeded())
    features = tiny_vit(images, stack.adapters())
    copies = plain_set(stack)
    expected = tiny_vit(images, copies)
    torch.testing.assert_close(features, expected)
    features.square().sum().backward()
    expected.square().sum().backward()
    assert stack.down.grad is not None
    for block in range(BLOCKS):
        module = copies.at("mlp", block)
        assert module is not None
        torch.testing.assert_close(stack.down.grad[block], module.down.grad)


def test_each_image_gets_the_set_of_its_index(tiny_vit: AdaptedViT) -> None:
    stacks = [random_stack(seed) for seed in range(4)]
    bank = bank_of(stacks)
    images = torch.randn(7, 3, 32, 32, generator=seeded())
    index = torch.tensor([3, 0, 0, 2, 1, 3, 2])
    together = tiny_vit(images, bank.choose(index))
    for row, chosen in enumerate(index.tolist()):
        alone = tiny_vit(images[row : row + 1], plain_set(stacks[chosen]))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-5)
    for same in (2, torch.full((7,), 2)):
        torch.testing.assert_close(
            tiny_vit(images, bank.choose(same)), tiny_vit(images, plain_set(stacks[2]))
        )


def test_a_stored_set_does_not_follow_the_one_in_training() -> None:
    stack = random_stack(0)
    bank = bank_of([stack])
    before = [value.clone() for value in bank.tensors()]
    with torch.no_grad():
        stack.down.add_(1)
    assert all(torch.equal(*pair) for pair in zip(before, bank.tensors(), strict=True))
    assert not any(value.requires_grad for value in bank.tensors())


def test_mean_and_distances_against_plain_loops() -> None:
    stacks = [random_stack(seed) for seed in range(3)]
    bank = bank_of(stacks)
    flat = [
        torch.cat([value.detach().flatten() for value in stack.tensors()]).double()
        for stack in stacks
    ]
    for name, value in enumerate(bank.mean()):
        torch.testing.assert_close(value, sum(s.tensors()[name] for s in stacks) / 3)
    for i, one in enumerate(flat):
        for j, other in enumerate(flat):
            expected = float((other - one).norm() / one.norm())
            assert bank.distances()[i, j].item() == pytest.approx(expected, abs=1e-9)
    zero = fresh_stack(BLOCKS)
    with torch.no_grad():
        zero.down.zero_()
    assert bool(torch.isfinite(bank_of([zero, stacks[0]]).distances()).all())


def test_dropout_drops_its_share_of_the_middle_and_keeps_the_mean() -> None:
    stack = random_stack(2, dropout=0.25)
    stack.noise = seeded(3)
    tokens = torch.randn(64, 5, DIM, generator=seeded())
    module = plain(stack, 1)
    hidden = torch.relu(torch.nn.functional.linear(tokens, module.down, module.down_bias))

    def middle(output: Tensor) -> Tensor:  # undo the second layer: its columns are independent
        inverse = torch.linalg.pinv(module.up.detach())
        return (output / 0.1 - module.up_bias) @ inverse.T

    found = middle(stack.adapters().at("mlp", 1)(tokens))  # type: ignore[misc]
    active = hidden > 0.05
    dropped = (found.abs() < 1e-3) & active
    assert dropped.sum() / active.sum() == pytest.approx(0.25, abs=0.03)
    kept = active & ~dropped
    torch.testing.assert_close(found[kept], hidden[kept] / 0.75, rtol=1e-2, atol=1e-2)
    stack.eval()
    torch.testing.assert_close(stack.adapters().at("mlp", 1)(tokens), module(tokens))  # type: ignore[misc]


@pytest.mark.parametrize("index", [2, -1, torch.tensor([0, 2]), torch.tensor([-1, 0])])
def test_an_index_without_a_set_is_refused(index: int | Tensor) -> None:
    with pytest.raises(InputError, match=r"below the number of stored sets, 2, got (2|-1)"):
        bank_of([random_stack(0), random_stack(1)]).choose(index)


def test_a_bank_returns_from_its_state() -> None:
    bank = bank_of([random_stack(0), random_stack(1)])
    other = AdapterBank(random_stack(0))
    other.load_state_dict(bank.state_dict())
    assert len(other) == 2
    assert all(torch.equal(*pair) for pair in zip(bank.tensors(), other.tensors(), strict=True))


class Nested(nn.Module):
    """A stranger's PEFT module: layers inside, names that a stack has methods for."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, 3), nn.Tanh(), nn.Linear(3, dim))
        self.mean = nn.Parameter(torch.zeros(dim))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs) + self.mean


def stacked_and_plain(name: str, seed: int, network: AdaptedViT) -> tuple[AdapterStack, AdapterSet]:
    """Returns a stack with random weights, and plain modules with the same."""
    peft = PEFTS.get(name)
    modules = [
        peft.build(DIM, 3, seeded(), place=(network.site, block)) if peft else Nested(DIM)
        for block in range(BLOCKS)
    ]
    slot = peft.slot if peft else "mlp"
    with torch.no_grad():
        for number, module in enumerate(modules):
            for value in module.parameters():
                value.normal_(std=0.3, generator=seeded(seed + number))
    return AdapterStack(modules, slot), AdapterSet(
        {(slot, block): module for block, module in enumerate(modules)}
    )


@pytest.mark.parametrize(
    "name", [*(name for name, peft in PEFTS.items() if not peft.only_plain), "nested"]
)
def test_any_kind_is_stacked_stored_and_applied_by_image(tiny_vit: AdaptedViT, name: str) -> None:
    pairs = (stacked_and_plain(name, seed, tiny_vit) for seed in (0, 50, 100))
    stacks, plain_sets = zip(*pairs, strict=True)
    for each in (*stacks, *plain_sets):
        each.eval()  # some draw in training
    images = torch.randn(5, 3, 32, 32, generator=seeded())
    expected = tiny_vit(images, plain_sets[0])
    assert (expected - tiny_vit(images)).abs().max() > 1e-3
    found = tiny_vit(images, stacks[0].adapters())
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    gradients = [value.grad for value in plain_sets[0].parameters()]
    learned = [*stacks[0].parameters()]
    count = len(learned)
    for index, value in enumerate(learned):
        torch.testing.assert_close(value.grad, torch.stack(gradients[index::count]))
    bank = bank_of(list(stacks))
    index = torch.tensor([2, 0, 0, 1, 2])
    together = tiny_vit(images, bank.choose(index))
    for row, chosen in enumerate(index.tolist()):
        alone = tiny_vit(images[row : row + 1], plain_sets[chosen])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)
    other = AdapterBank(stacks[0])
    other.load_state_dict(bank.state_dict())
    torch.testing.assert_close(tiny_vit(images, other.choose(index)), together)


class WithExtraState(nn.Linear):
    def get_extra_state(self) -> int:
        return 3


def test_a_peft_module_that_keeps_more_than_tensors_is_refused() -> None:
    with pytest.raises(InputError, match="parameters and buffers, got the state '_extra_state'"):
        AdapterStack([WithExtraState(2, 2)], "mlp")
    with pytest.raises(InputError, match="got no parameter"):
        AdapterStack([nn.Identity()], "mlp")


def test_sets_that_were_cut_off_are_forgotten_and_others_follow_the_first() -> None:
    stacks = [random_stack(seed) for seed in range(4)]
    bank = bank_of(stacks[:3])
    bank.cut(1)
    bank.append(stacks[3].tensors())
    assert len(bank) == 2
    for index, stack in ((0, stacks[0]), (1, stacks[3])):
        for value, expected in zip(bank.at(index), stack.tensors(), strict=True):
            assert torch.equal(value, expected)
