"""DyLoRA: what a rank computes, what a step at a rank trains."""

import pytest
import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.peft.dylora import DyLoRA
from cl_adapters.peft.lora import KeyValueLoRA
from cl_adapters.peft.noise import hand_out

DIM, RANK = 6, 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(*, frozen: bool = True) -> DyLoRA:
    module = DyLoRA(DIM, RANK, alpha=8, frozen=frozen, generator=seeded())
    with torch.no_grad():
        for number, value in enumerate(module.parameters()):
            value.normal_(generator=seeded(number))
    return module


def tokens() -> Tensor:
    return torch.randn(2, 5, DIM, generator=seeded(9))


def drawn_ranks(seed: int, count: int) -> list[int]:
    draws = seeded(seed)
    return [int(torch.randint(1, RANK + 1, (), generator=draws)) for _ in range(count)]


def plain(module: DyLoRA, side: str, rank: int) -> Tensor:
    """Returns the sum over single ranks, token by token."""
    down, up = (getattr(module, f"{side}_{part}") for part in ("down", "up"))
    rows = []
    for row in tokens().flatten(0, 1):
        sums = [up[:, r] * (down[r] @ row) for r in range(rank)]
        rows.append(module.alpha / rank * torch.stack(sums).sum(dim=0))
    return torch.stack(rows).view(2, 5, DIM)


def test_each_rank_is_the_sum_of_its_first_parts() -> None:
    module = trained().eval()
    assert module.alpha / 2 == 4  # the factor at rank 2
    for rank in range(1, RANK + 1):
        module.rank = rank
        for found, side in zip(module(tokens()), ("key", "value"), strict=True):
            torch.testing.assert_close(found, plain(module, side, rank))
    with torch.no_grad():
        module.rank = 2
        before = module(tokens())
        module.key_up[:, 2:] = torch.nan
        module.value_down[2:] = torch.nan
        assert all(map(torch.equal, before, module(tokens()))), "later parts have no say"


def test_the_full_rank_is_lora() -> None:
    module, lora = trained().eval(), KeyValueLoRA(DIM, RANK, generator=seeded())
    with torch.no_grad():
        for name, value in module.named_parameters():
            lora.get_parameter(name).copy_(value)
        lora.key_scale.fill_(8 / RANK)
        lora.value_scale.fill_(8 / RANK)
    for found, expected in zip(module(tokens()), lora(tokens()), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_step_trains_the_part_of_its_rank_or_all_up_to_it(*, frozen: bool) -> None:
    seen = set()
    for seed in range(8):
        module = trained(frozen=frozen)
        hand_out(module, seeded(seed))
        (rank,) = drawn_ranks(seed, 1)
        seen.add(rank)
        keys, values = module(tokens())
        torch.testing.assert_close(values, plain(module, "value", rank))
        (keys.square().sum() + values.square().sum()).backward()
        expected = [frozen * (rank - 1) <= r < rank for r in range(RANK)]
        for name, value in module.named_parameters():
            assert value.grad is not None, "zeros where nothing is learned"
            rows = value.grad if name.endswith("down") else value.grad.T
            assert rows.any(dim=1).tolist() == expected, name
    assert len(seen) >= 3


def test_ranks_are_drawn_alike_from_the_generator_and_only_in_training() -> None:
    module = trained()
    hand_out(module, seeded(3))
    ranks = drawn_ranks(3, 6)
    for rank in ranks:
        torch.testing.assert_close(module(tokens())[0], plain(module, "key", rank))
    assert len(set(ranks)) > 1
    with torch.no_grad():
        torch.testing.assert_close(module(tokens())[0], plain(module, "key", RANK))
    module.requires_grad_(requires_grad=False)
    torch.testing.assert_close(module(tokens())[0], plain(module, "key", RANK))


def test_parameters_and_ranks_that_are_none() -> None:
    module = DyLoRA(768, 8, generator=seeded())
    assert sum(value.numel() for value in module.parameters()) == 24_576
    with pytest.raises(InputError, match=r"`rank` must lie in \[1, 8\], got 9"):
        module.rank = 9
