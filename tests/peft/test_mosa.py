"""MoSA: whose entries compute, whose learn, and what is left when none is drawn."""

import pytest
import torch
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.peft.mosa import MoSA, owners
from cl_adapters.peft.noise import hand_out

DIM, WIDTH, EXPERTS = 6, 3, 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(*, dropout: float = 0.0, **options: bool) -> MoSA:
    module = MoSA(DIM, WIDTH, experts=EXPERTS, dropout=dropout, generator=seeded(), **options)
    with torch.no_grad():
        for number, value in enumerate(module.parameters()):
            value.add_(torch.randn(value.shape, generator=seeded(number)))
    return module


def tokens() -> Tensor:
    return torch.randn(2, 5, DIM, generator=seeded(9))


def plain(module: MoSA, down: Tensor, up: Tensor) -> Tensor:
    """Returns what an adapter with a layer norm computes, token by token."""
    rows = []
    for row in tokens().flatten(0, 1):
        normed = (row - row.mean()) / (row.var(correction=0) + 1e-5).sqrt()
        hidden = down @ (normed * module.norm.weight + module.norm.bias) + module.down_bias
        rows.append(0.1 * (up @ nn.functional.gelu(hidden) + module.up_bias))
    return torch.stack(rows).view(2, 5, DIM)


@pytest.mark.parametrize("split", ["all", "row", "column"])
def test_every_entry_has_one_owner_and_experts_own_alike_many(split: str) -> None:
    expected = torch.tensor([[1, 0], [0, 1]])
    assert torch.equal(owners(torch.tensor([[0.7, 0.1], [0.4, 0.9]]), 2).long(), expected)
    scores = torch.rand(7, 9, generator=seeded())
    found = owners(scores, 4, split)  # type: ignore[arg-type]
    lines = {"all": [found.flatten()], "row": [*found], "column": [*found.T]}[split]
    for line in lines:
        counts = torch.bincount(line.long(), minlength=4)
        assert counts.sum() == len(line)
        assert counts.max() - counts.min() <= 1
    if split == "all":  # owners follow the ranks
        assert torch.equal(found.flatten()[scores.flatten().argsort()], found.flatten().sort()[0])


def test_outside_of_training_all_entries_compute() -> None:
    module = trained().eval()
    expected = plain(module, module.down, module.up)
    torch.testing.assert_close(module(tokens()), expected)
    bias = 0.1 * module.up_bias
    parts = [
        plain(module, module.down, module.up * (module.up_owners == j)) for j in range(EXPERTS)
    ]
    torch.testing.assert_close(sum(part - bias for part in parts) + bias, expected)
    with torch.no_grad():
        torch.testing.assert_close(module.train()(tokens()), expected)


@pytest.mark.parametrize("shares_down", [False, True])
def test_a_step_computes_with_the_entries_of_the_experts_it_draws(*, shares_down: bool) -> None:
    module = trained(shares_down=shares_down)
    hand_out(module, seeded(5))
    draws = seeded(5)
    for _ in range(3):
        down = module.down
        if not shares_down:
            expert = torch.randint(EXPERTS, (), generator=draws)
            down = torch.where(module.down_owners == expert, down, module.down_start)
        expert = torch.randint(EXPERTS, (), generator=draws)
        expected = plain(module, down, module.up * (module.up_owners == expert))
        torch.testing.assert_close(module(tokens()), expected)
    assert hasattr(module, "down_owners") is not shares_down


def test_a_step_moves_the_entries_that_were_drawn_and_no_others() -> None:
    module = trained()
    hand_out(module, seeded(5))
    draws = seeded(5)
    experts = {name: torch.randint(EXPERTS, (), generator=draws) for name in ("down", "up")}
    before = {name: getattr(module, name).detach().clone() for name in experts}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    (module(tokens()) * tokens()).sum().backward()
    optimizer.step()
    for name, expert in experts.items():
        drawn = getattr(module, f"{name}_owners") == expert
        moved = getattr(module, name) != before[name]
        assert torch.equal(moved, drawn), name
    assert module.up_bias.grad is not None
    assert module.up_bias.grad.all()


def test_its_draws_are_those_of_the_generator_and_go_on_where_it_went_on() -> None:
    first, second = trained(dropout=0.3), trained(dropout=0.3)
    noise = seeded(7)
    hand_out(first, noise)
    first(tokens())
    state = noise.get_state()
    expected = [first(tokens()) for _ in range(3)]
    resumed = seeded()
    resumed.set_state(state)
    hand_out(second, resumed)
    assert all(torch.equal(each, second(tokens())) for each in expected)
    assert not torch.equal(*expected[:2])


def test_parameters_are_those_of_one_adapter() -> None:
    for width, expected in ((64, 100_672), (16, 26_896)):
        module = MoSA(768, width, generator=seeded())
        assert sum(value.numel() for value in module.parameters()) == expected
    with pytest.raises(InputError, match=r"`experts` must lie in \[1, 2\], since each .* got 4"):
        MoSA(2, 1, generator=seeded())
