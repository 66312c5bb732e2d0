"""Sets at one bit a number against plain Python, number by number."""

import math
import statistics

import pytest
import torch
from torch import Tensor

from cl_adapters.buffers import count_numbers
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.onebit import OneBit, quantised
from cl_adapters.peft.onebit_bank import OneBitBank
from cl_adapters.peft.stack import AdapterStack
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.peft.test_bank import BLOCKS, DIM, WIDTH, plain_set, random_stack, seeded


def by_hand(value: Tensor) -> Tensor:
    """Returns what two values with the mean and deviation of a tensor make of it."""
    numbers = value.flatten().tolist()
    mean, deviation = statistics.fmean(numbers), statistics.stdev(numbers)
    above = [number > mean for number in numbers]
    many, few = sum(above), len(above) - sum(above)
    spread = deviation * math.sqrt((len(above) - 1) / len(above))
    high, low = mean + spread * math.sqrt(few / many), mean - spread * math.sqrt(many / few)
    return torch.tensor([high if each else low for each in above]).view(value.shape)


def stored(stacks: list[AdapterStack]) -> OneBitBank:
    bank = OneBitBank(stacks[0])
    for stack in stacks:
        bank.append(stack.tensors())
    return bank


def in_bits(stack: AdapterStack) -> AdapterStack:
    """Returns a stack whose tensors are what should be left of them."""
    copy = random_stack(99)
    copy.load([torch.stack([*map(by_hand, value.detach())]) for value in stack.tensors()])
    return copy


def test_each_tensor_of_a_block_keeps_a_bit_an_entry_its_mean_and_its_deviation() -> None:
    stacks = [random_stack(seed) for seed in range(3)]
    bank = stored(stacks)
    for place, stack in enumerate(stacks):
        for found, expected in zip(bank.at(place), in_bits(stack).tensors(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    both = in_bits(stacks[0]).tensors(), in_bits(stacks[2]).tensors()
    for found, one, other in zip(bank.mean([0, 2]), *both, strict=True):
        torch.testing.assert_close(found, (one + other) / 2, rtol=1e-5, atol=1e-6)


def test_each_image_is_answered_with_what_the_bits_say(tiny_vit: AdaptedViT) -> None:
    stacks = [random_stack(seed) for seed in range(4)]
    bank, index = stored(stacks), torch.tensor([3, 0, 3, 1, 3])
    images = torch.randn(5, 3, 32, 32, generator=seeded())
    together = tiny_vit(images, bank.choose(index))
    for row, chosen in enumerate(index.tolist()):
        alone = tiny_vit(images[row : row + 1], plain_set(in_bits(stacks[chosen])))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)
        same = tiny_vit(images[row : row + 1], bank.choose(chosen))
        torch.testing.assert_close(alone, same, rtol=1e-4, atol=1e-4)


def test_a_state_holds_bits_and_gives_the_same_sets_back() -> None:
    bank = stored([random_stack(seed) for seed in range(2)])
    state = bank.state_dict()
    # Of a set and block: eight entries a byte, and two numbers for each of four tensors.
    entries = [WIDTH * DIM, WIDTH, DIM * WIDTH, DIM]
    a_set = BLOCKS * sum(math.ceil(each / 8) + 8 for each in entries)
    assert sum(value.nbytes for value in state.values()) == 2 * a_set
    assert count_numbers(bank, state) == 2 * BLOCKS * (sum(entries) + 8)
    other = OneBitBank(random_stack(5))
    other.load_state_dict(state)
    for one, again in zip(bank.tensors(), other.tensors(), strict=True):
        assert torch.equal(one, again)


@pytest.mark.parametrize("change", ["replace", "cut"])
def test_sets_are_replaced_and_forgotten(change: str) -> None:
    stacks = [random_stack(seed) for seed in range(3)]
    bank = stored(stacks[:2])
    if change == "replace":
        bank.replace(0, stacks[2].tensors())
        kept = [stacks[2], stacks[1]]
    else:
        bank.cut(1)
        bank.append(stacks[2].tensors())
        kept = [stacks[0], stacks[2]]
    expected = stored(kept)
    assert len(bank) == 2
    assert all(torch.equal(*pair) for pair in zip(bank.tensors(), expected.tensors(), strict=True))


def test_a_set_that_is_stored_again_stays_as_it_is_and_a_constant_is_exact() -> None:
    stack = random_stack(0)
    with torch.no_grad():
        stack.up_bias.zero_()
        stack.down_bias.fill_(0.25)
    bank = stored([stack])
    for _ in range(3):
        bank.append(bank.at(-1))
    for value in bank.tensors():
        torch.testing.assert_close(value[3], value[0], rtol=1e-5, atol=1e-6)
    assert not bank.at(3)[3].any()
    assert (bank.at(3)[1] == 0.25).all()


def test_what_is_too_short_for_bits_and_what_counts_is_kept_as_it_is() -> None:
    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor([0.3, 0.1]))
            self.three = torch.nn.Parameter(torch.tensor([0.3, 0.1, 0.2]))
            self.register_buffer("calls", torch.tensor(7))

    bank = stored([AdapterStack([Counting(), Counting()], "mlp")])
    names = {name: value.dtype for name, value in bank.state_dict().items()}
    assert names == {
        "peft-scale": torch.float32,
        "peft-three_bits": torch.uint8,
        "peft-three_moments": torch.float32,
        "peft-calls": torch.int64,
    }
    scale, three, calls = bank.at(0)
    assert scale.tolist() == [[pytest.approx(0.3), pytest.approx(0.1)]] * 2
    torch.testing.assert_close(three, by_hand(torch.tensor([0.3, 0.1, 0.2])).expand(2, 3))
    assert calls.tolist() == [7, 7]


def test_modules_that_round_their_weights_themselves_find_the_same(
    tiny_vit: AdaptedViT,
) -> None:
    modules = [OneBit(DIM, 3, generator=seeded(block)) for block in range(BLOCKS)]
    with torch.no_grad():
        for block, module in enumerate(modules):
            module.up.normal_(generator=seeded(block + 50))
    bank = stored([AdapterStack(modules, "mlp")])
    images = torch.randn(2, 3, 32, 32, generator=seeded())
    for each in modules:
        each.eval()
    expected = tiny_vit(images, AdapterSet({("mlp", k): each for k, each in enumerate(modules)}))
    torch.testing.assert_close(tiny_vit(images, bank.choose(0)), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(quantised(bank.at(0)[0][1]), quantised(modules[1].down))
