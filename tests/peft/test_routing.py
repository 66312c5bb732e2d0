"""Routers of a slot that holds several adapters, against plain arithmetic."""

import pytest
import torch
from torch import Tensor

from cl_adapters.peft.memories import SignMemories
from cl_adapters.peft.routing import ExpandableSlot, RouterKind
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.suite import check_strategy


def slot(router: RouterKind, adapters: int) -> ExpandableSlot:
    made, source = ExpandableSlot(6, 2, router=router), torch.Generator().manual_seed(0)
    for _ in range(adapters):
        made.add_adapter(source)
    with torch.no_grad():
        for value in made.adapters.parameters():
            value.normal_(generator=source)
    return made


def tokens(count: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 6, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_a_column_for_no_adapter_takes_its_share_of_the_softmax() -> None:
    made = slot("learned_null", 2)
    assert made.nothing is not None
    for column, bias in zip([*made.columns, made.nothing], (1.0, 2.0, 5.0), strict=True):
        column.weight.zero_()
        column.bias.fill_(torch.tensor(bias).log())
    weights = made.route(tokens().mean(dim=1))
    torch.testing.assert_close(weights, torch.tensor([[1 / 8, 2 / 8]]).expand(4, 2))
    first, second = (each(tokens()) for each in made.adapters)
    torch.testing.assert_close(made(tokens()), first / 8 + second / 4)
    made.left_out = frozenset({1})
    torch.testing.assert_close(made.route(tokens().mean(dim=1))[0], torch.tensor([1 / 6, 0]))
    made.left_out = frozenset()
    made.nothing.bias.fill_(1000)
    assert not made(tokens()).any()  # the frozen network


def test_the_column_for_no_adapter_lets_the_first_one_learn_and_is_trained_with_it_alone() -> None:
    for router, learns in (("learned", False), ("learned_null", True)):
        made = slot(router, 1)
        made(tokens()).square().sum().backward()
        assert bool(made.columns[0].weight.grad.abs().max() > 1e-5) is learns
    assert made.nothing is not None
    assert made.nothing.weight.grad.abs().max() > 1e-5
    assert any(each is made.nothing.weight for each in made.newest_parameters())
    made.add_adapter(torch.Generator().manual_seed(3))
    assert all(each is not made.nothing.weight for each in made.newest_parameters())


def test_an_image_goes_to_the_most_similar_memory() -> None:
    made, source = slot("memory", 2), torch.Generator().manual_seed(2)
    router = made.memories
    assert router is not None
    first, second = (torch.randn(20, 6, generator=source) + shift for shift in (0.0, 3.0))
    for adapter, rows in enumerate((first, second)):
        made.update_router(rows, adapter)
    centre = first.mean(dim=0)
    spread = float(((first - centre) ** 2).sum(dim=1).mean() ** 0.5)

    def signs(row: Tensor) -> Tensor:
        point = torch.cat([(row - centre) / spread, torch.ones(1)])
        return torch.tensor(
            [1.0 if float(each @ point) >= 0 else -1.0 for each in router.directions.T]
        )

    memories = [sum(map(signs, rows)) for rows in (first, second)]
    asked = torch.randn(30, 6, generator=source) + torch.linspace(0, 3, 30)[:, None]
    weights = made.route(asked)
    for row, found in zip(asked, weights, strict=True):
        cosines = [float(torch.cosine_similarity(signs(row), each, dim=0)) for each in memories]  # type: ignore[arg-type] # tensors
        assert found.tolist() == [float(cosines[0] >= cosines[1]), float(cosines[1] > cosines[0])]
    assert 5 < weights[:, 0].sum() < 25
    assert torch.equal(torch.cat([made.route(row[None]) for row in asked]), weights)
    made.left_out = frozenset({0})
    assert made.route(asked).tolist() == [[0.0, 1.0]] * 30


def test_memories_of_parts_add_up_and_the_state_brings_them_back() -> None:
    rows = tokens(20).mean(dim=1)
    whole, parts, twin = (SignMemories(6, 64) for _ in range(3))
    for each in (whole, parts, twin):
        each.add_adapter()
        each.add_adapter()
        each.add(rows, 0) if each is not twin else None
    whole.add(rows + 1, 1)
    parts.add(rows[:7] + 1, 1)
    parts.add(rows[7:] + 1, 1)
    assert torch.equal(whole.memories, parts.memories)
    twin.load_state_dict(whole.state_dict())
    assert torch.equal(twin(rows + 0.5), whole(rows + 0.5))


@pytest.mark.slow
@pytest.mark.parametrize("router", ["learned_null", "memory"])
def test_a_method_with_the_router_is_sound(router: str) -> None:
    options = {"watch": "slots", "router": router, "policy": "every_experience"}
    checks = ["answers", "backbone", "seen_classes", "resumes"]
    assert check_strategy(find_strategy("sema"), options=options, checks=checks) == []
