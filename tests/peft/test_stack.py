"""Stacks: how they are built, what they keep beside parameters, what they hand to a backbone."""

import copy
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.bank import AdapterBank
from cl_adapters.peft.bottleneck import Bottleneck
from cl_adapters.peft.merging import merge_
from cl_adapters.peft.registry import PARALLEL, PEFTS, Peft, as_peft
from cl_adapters.peft.site import Site
from cl_adapters.peft.stack import AdapterStack
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.calibration import calibrate

DIM = 64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 5) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=seeded())


@pytest.mark.parametrize("name", [name for name, peft in PEFTS.items() if not peft.only_plain])
def test_building_draws_what_making_one_module_after_the_other_draws(name: str) -> None:
    peft, draws = PEFTS[name], seeded(4)
    site = Site("key_value", 0, DIM, DIM, torch.randn(2 * DIM, DIM, generator=seeded(7)))

    def site_of(slot: str, block: int) -> Site:
        assert block < 3
        return site

    stack = AdapterStack.build(
        peft,
        embed_dim=DIM,
        blocks=3,
        size=5,
        generator=seeded(4),
        sites=site_of,
        scale=0.3,
        dropout=0.2,
    )
    if name == "parallel":
        modules: list[nn.Module] = [
            Bottleneck(DIM, 5, activation="relu", scale=0.3, dropout=0.2, generator=draws)
            for _ in range(3)
        ]
    else:  # options are those of `parallel` alone
        modules = [peft.build(DIM, 5, draws, place=(site_of, 0)) for _ in range(3)]
    plain = AdapterStack(modules, peft.slot)
    assert all(map(torch.equal, stack.tensors(), plain.tensors()))
    assert stack.state_dict().keys() == plain.state_dict().keys()
    assert stack.template.dropout == {"parallel": 0.2, "adaptformer": 0.1}.get(name, 0)
    scales = [each.template.module.scale for each in (stack, plain) if name == "parallel"]
    assert [float(each) for each in scales] in ([], [pytest.approx(0.3)] * 2)


def test_names_in_the_state_of_bottlenecks_are_those_of_saved_runs() -> None:
    stack = AdapterStack.build(PARALLEL, embed_dim=8, blocks=2, generator=seeded())
    assert list(stack.state_dict()) == ["down", "down_bias", "up", "up_bias"]
    assert list(AdapterBank(stack).state_dict()) == ["down", "down_bias", "up", "up_bias"]
    learned = AdapterStack.build(PEFTS["adapter"], embed_dim=8, blocks=2, generator=seeded())
    assert list(learned.state_dict()) == ["down", "down_bias", "up", "up_bias", "peft-scale"]


def test_a_stack_may_fill_some_blocks_only(tiny_vit: AdaptedViT) -> None:
    stack = AdapterStack.build(PARALLEL, embed_dim=DIM, blocks=[1, 4], size=3, generator=seeded())
    nn.init.normal_(stack.up, generator=seeded(1))
    adapters = stack.adapters()
    assert list(adapters) == [("mlp", 1), ("mlp", 4)]
    assert torch.equal(tiny_vit(images(), adapters), tiny_vit(images(), stack.modules_apart()))
    bank = AdapterBank(stack)
    bank.append(stack.tensors())
    assert list(bank.choose(0)) == [("mlp", 1), ("mlp", 4)]
    with pytest.raises(InputError, match="at least one block, got none"):
        AdapterStack.build(PARALLEL, embed_dim=DIM, blocks=[], generator=seeded())


def test_adapters_follow_the_stack_and_cost_few_calls_of_ours() -> None:
    stack = AdapterStack.build(PARALLEL, embed_dim=8, blocks=12, size=2, generator=seeded())
    tokens = torch.randn(2, 3, 8, generator=seeded(1))
    adapters = stack.adapters()
    for _ in range(3):
        nn.init.normal_(stack.up, generator=seeded(2))
        found = stack.adapters().at("mlp", 5)
        expected = stack.modules_apart().at("mlp", 5)
        assert found is not None
        assert expected is not None
        assert torch.equal(found(tokens), expected(tokens))
        found(tokens).sum().backward()  # a graph of its own each time
    assert stack.adapters() is adapters
    calls = []
    sys.setprofile(
        lambda frame, event, _: (
            calls.append(frame.f_code.co_qualname)
            if event == "call" and "cl_adapters/peft" in frame.f_code.co_filename
            else None
        )
    )
    try:
        stack.adapters()
    finally:
        sys.setprofile(None)
    assert 1 <= len(calls) <= 5, calls


@pytest.mark.parametrize("name", ["parallel", "lora"])
def test_a_stack_that_has_run_can_be_copied(name: str) -> None:
    stack = AdapterStack.build(PEFTS[name], embed_dim=8, blocks=2, generator=seeded())
    slot = stack.template.slot
    inputs = torch.ones(1, 3, 8)
    stack.adapters().at(slot, 0)(inputs)  # type: ignore[misc]
    twin = copy.deepcopy(stack)
    with torch.no_grad():
        for value in twin.parameters():
            value.add_(1)
    one, other = (each.adapters().at(slot, 0)(inputs) for each in (stack, twin))  # type: ignore[misc]
    one, other = (each[0] if isinstance(each, tuple) else each for each in (one, other))
    assert not torch.equal(one, other)
    assert stack.adapters() is not twin.adapters()


class Tired(nn.Module):
    """Writes into its buffer at every call, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(DIM))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return inputs * self.gain * self.calls


def test_a_stored_set_stays_what_it_is_whatever_its_modules_write(tiny_vit: AdaptedViT) -> None:
    stack = AdapterStack([Tired() for _ in range(6)], "attention")
    bank = AdapterBank(stack)
    bank.append(stack.tensors())
    first, again = (tiny_vit(images(), bank.choose(0)) for _ in range(2))
    assert torch.equal(first, again)
    assert not bank.get_buffer("peft-calls").any()


class Counting(nn.Module):
    """Has a buffer by block, one that changes in training, and one that no state holds."""

    slot = "attention"
    default_size = 1

    def __init__(self, dim: int, size: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(dim, generator=generator))
        self.register_buffer("basis", torch.randn(dim, dim, generator=generator) / 8)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("running", torch.zeros(dim))
        shift = torch.randn(dim, generator=generator)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
            mean = inputs.detach().mean(dim=(0, 1))
            self.running = 0.5 * self.running + 0.5 * mean  # a new tensor, not in place
        return (inputs @ self.basis + self.shift - self.running) * self.gain / 8


def counting(seed: int) -> tuple[AdapterStack, AdapterSet]:
    draws = seeded(seed)
    modules = [Counting(DIM, 1, generator=draws) for _ in range(6)]
    stack = AdapterStack(modules, "attention")
    return stack, AdapterSet({("attention", b): m for b, m in enumerate(modules)})


def test_buffers_are_kept_by_block_change_in_training_and_are_stored(tiny_vit: AdaptedViT) -> None:
    stacks, plain = zip(*(counting(seed) for seed in range(3)), strict=True)
    for stack, modules in zip(stacks, plain, strict=True):
        for _ in range(2):
            torch.testing.assert_close(
                tiny_vit(images(), stack.adapters()), tiny_vit(images(), modules)
            )
        for block in range(6):
            module = modules.at("attention", block)
            row = {name: value[block] for name, value in stack.named_buffers()}
            assert torch.equal(row["peft-seen"], torch.tensor(2))
            for name, value in row.items():
                torch.testing.assert_close(value, getattr(module, name.removeprefix("peft-")))


def test_a_bank_keeps_buffers_by_set_and_block_and_no_call_changes_them(
    tiny_vit: AdaptedViT,
) -> None:
    stacks, plain = zip(*(counting(seed) for seed in range(3)), strict=True)
    bank = AdapterBank(stacks[0])
    for stack, modules in zip(stacks, plain, strict=True):
        tiny_vit(images(), stack.adapters())
        tiny_vit(images(), modules)
        bank.append(stack.tensors())
    other = AdapterBank(counting(0)[0])
    other.load_state_dict(bank.state_dict())
    assert other.state_dict()["peft-seen"].dtype == torch.int64
    before = copy.deepcopy(bank.state_dict())
    index = torch.tensor([2, 0, 1, 0, 2])
    for held in (bank, other):
        together = tiny_vit(images(), held.choose(index))
        for row, chosen in enumerate(index.tolist()):
            # The shift is no part of a state: all sets take that of the first.
            for block in range(6):
                module = plain[chosen].eval().at("attention", block)
                module.shift = plain[0].at("attention", block).shift  # type: ignore[union-attr]
            alone = tiny_vit(images()[row : row + 1], plain[chosen])
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in bank.state_dict().items())


def test_means_and_merges_leave_whole_numbers_alone() -> None:
    stacks = [counting(seed)[0] for seed in range(2)]
    for count, stack in enumerate(stacks):
        stack.get_buffer("peft-seen").fill_(count + 3)
    bank = AdapterBank(stacks[0])
    for stack in stacks:
        bank.append(stack.tensors())
    named = dict(zip(bank.template.keys, bank.mean(), strict=True))
    assert named["peft-seen"].tolist() == [4] * 6
    gains = [stack.get_parameter("peft-gain") for stack in stacks]
    torch.testing.assert_close(named["peft-gain"], sum(gains) / 2)  # type: ignore[arg-type]
    expected = (0.75 * gains[0] + 0.25 * named["peft-gain"]).detach()
    merge_(stacks[0].tensors(), bank.mean(), 0.25)
    torch.testing.assert_close(gains[0].detach(), expected)
    assert stacks[0].get_buffer("peft-seen").tolist() == [3] * 6
    assert bank.distances().shape == (2, 2)


class Reshaping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.register_buffer("rows", torch.zeros(1))

    def forward(self, inputs: Tensor) -> Tensor:
        self.rows = torch.zeros(2)
        return inputs * self.gain


def test_a_buffer_that_changes_its_shape_is_refused() -> None:
    adapters = AdapterStack([Reshaping(), Reshaping()], "mlp").adapters()
    with pytest.raises(InputError, match=r"'rows' .* keep its shape, \(1,\), got \(2,\)"):
        adapters.at("mlp", 0)(torch.ones(1, 2, 8))  # type: ignore[misc]


class FromWeight(nn.Module):
    """A frozen basis from the layer that it stands beside, of which it learns a square (LoRA-XS)."""

    slot = "fc2"
    default_size = 3

    def __init__(
        self, dim: int, size: int, *, generator: torch.Generator, sites: dict[str, Any]
    ) -> None:
        super().__init__()
        left, values, right = torch.linalg.svd(sites["fc2"].weight, full_matrices=False)
        self.block = sites["fc2"].block
        self.register_buffer("right", values[:size, None] * right[:size])
        self.register_buffer("left", left[:, :size].contiguous())
        self.square = nn.Parameter(torch.randn(size, size, generator=generator))

    def forward(self, inputs: Tensor, output: Tensor) -> Tensor:
        return inputs @ self.right.T @ self.square.T @ self.left.T


def test_a_kind_that_asks_for_its_site_is_built_and_stacked_for_a_network(
    tiny_vit: AdaptedViT,
) -> None:
    peft = as_peft(FromWeight)
    assert peft.takes_sites
    assert not PARALLEL.takes_sites
    stack = AdapterStack.build(
        peft, embed_dim=DIM, blocks=6, generator=seeded(), sites=tiny_vit.site
    )
    for block in range(6):
        weight = tiny_vit.vit.blocks[block].mlp.fc2.weight
        left, right = (stack.get_buffer(f"peft-{side}")[block] for side in ("left", "right"))
        nearest = torch.linalg.svd(weight - left @ right).S[0]
        torch.testing.assert_close(nearest, torch.linalg.svd(weight).S[3])
    changed = copy.deepcopy(tiny_vit.vit)
    with torch.no_grad():
        for block in range(6):
            parts = [stack.get_buffer(f"peft-{side}")[block] for side in ("left", "right")]
            square = stack.get_parameter("peft-square")[block]
            changed.blocks[block].mlp.fc2.weight += parts[0] @ square @ parts[1]
    found = tiny_vit(images(), stack.adapters())
    torch.testing.assert_close(found, AdaptedViT(changed)(images()), rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="asks for its site must get one, got none"):
        AdapterStack.build(peft, embed_dim=DIM, blocks=6, generator=seeded())


class Shared(nn.Module):
    """Fills two slots, one of which takes nothing."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.randn(2, DIM, generator=seeded(seed)))
        self.gain = nn.Parameter(torch.randn(DIM, generator=seeded(seed + 1)) / 8)
        self.renormalise = False

    def forward(self, *inputs: Tensor, slot: str) -> Any:
        return (self.keys, self.keys * 2) if slot == "prefix" else inputs[0] * self.gain


def test_modules_of_several_slots_are_stacked_and_chosen_by_image(tiny_vit: AdaptedViT) -> None:
    slots = ("prefix", "mlp")
    sets = [[Shared(10 * number + block) for block in range(6)] for number in range(2)]
    stacks = [AdapterStack(modules, slots) for modules in sets]
    plain = [AdapterSet({(slots, b): m for b, m in enumerate(each)}) for each in sets]
    bank = AdapterBank(stacks[0])
    for stack, modules in zip(stacks, plain, strict=True):
        found, expected = (tiny_vit(images(), each) for each in (stack.adapters(), modules))
        torch.testing.assert_close(found, expected)
        bank.append(stack.tensors())
    index = torch.tensor([1, 0, 0, 1, 1])
    together = tiny_vit(images(), bank.choose(index))
    for row, chosen in enumerate(index.tolist()):
        alone = tiny_vit(images()[row : row + 1], plain[chosen])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)


class Measured(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(1))
        self.register_buffer("largest", torch.zeros(()))

    def observe(self, *inputs: Tensor) -> None:
        self.largest = torch.maximum(self.largest, inputs[0].abs().max())

    def calibrate(self) -> None:
        self.largest = 1 / self.largest

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.gain * self.largest


def test_a_stack_is_calibrated_apart_and_takes_over_what_came_of_it(tiny_vit: AdaptedViT) -> None:
    stack = AdapterStack([Measured(), Measured()], "attention", [0, 3])
    apart = stack.modules_apart()
    calibrate(tiny_vit, apart, [images()])
    assert not stack.get_buffer("peft-largest").any(), "copies, until they are taken over"
    stack.take(apart)
    tokens = tiny_vit.tokens(images())
    for row, block in enumerate((0, 3)):
        entering = tiny_vit.vit.blocks[block].norm1(tiny_vit.run(tokens, 0, block))
        expected = 1 / entering.abs().max()
        torch.testing.assert_close(stack.get_buffer("peft-largest")[row], expected)


@torch.no_grad()
def test_plain_modules_keep_what_no_state_holds(tiny_vit: AdaptedViT) -> None:
    stack = AdapterStack.build(
        PEFTS["lora_xs"],
        embed_dim=64,
        blocks=[0, 3],
        size=2,
        generator=seeded(),
        sites=tiny_vit.site,
    )
    for value in stack.parameters():
        value.normal_(generator=seeded(1))
    found, expected = (
        tiny_vit(images(), each) for each in (stack.modules_apart(), stack.adapters())
    )
    torch.testing.assert_close(found, expected)


def test_a_kind_says_what_it_takes() -> None:
    for name, peft in PEFTS.items():
        is_single = peft.slots in {("attention",), ("mlp",), ("key_value",)}
        assert peft.takes_tokens == is_single, name
    assert Peft(("attention", "mlp"), 1, nn.Identity).slots == ("attention", "mlp")
    assert not Peft(("attention", "mlp"), 1, nn.Identity).takes_tokens
    assert not as_peft(FromWeight).takes_tokens
