"""LoRA-SB against the worked example, numpy, and steps of full training."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.peft.lora_sb import LoRASB
from cl_adapters.peft.registry import PEFTS
from cl_adapters.peft.site import Site
from cl_adapters.peft.stack import AdapterStack
from cl_adapters.vit.checks import tiny_backbone

DIM = 8


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lora_sb(rank: int, *, dim: int = DIM, step: float = 0.01) -> LoRASB:
    weight = torch.randn(2 * dim, dim, generator=seeded(3))
    site = Site("key_value", 0, dim, 2 * dim, weight)
    return LoRASB(dim, rank, step=step, generator=seeded(), sites={"key_value": site})


def gradient(dim: int = DIM) -> torch.Tensor:
    return torch.randn(2 * dim, dim, generator=seeded(4))


@torch.no_grad()
def test_by_hand() -> None:
    module = lora_sb(1, dim=2)
    module.calibrate_by({"key_value": torch.tensor([[1.0, 2], [3, 4], [-1, 1], [1, -1]])})
    expected = torch.tensor([[-0.01, -0.01], [-0.01, -0.01], [0.01, -0.01], [-0.01, 0.01]])
    torch.testing.assert_close(module.delta(), expected)
    torch.testing.assert_close(module.mix.flatten(), torch.tensor([0.02, 0.02]))


@torch.no_grad()
def test_it_starts_as_the_part_of_a_signed_step_that_rank_r_holds() -> None:
    module = lora_sb(3)
    x = torch.randn(2, 5, DIM, generator=seeded(5))
    assert not any(each.any() for each in module(x))
    assert module.awaits_gradient
    module.calibrate_by({"key_value": gradient()})
    assert not module.awaits_gradient
    for found, side, rows in zip(
        module(x), module.delta().chunk(2), gradient().chunk(2), strict=True
    ):
        step = -0.01 * np.sign(rows.double().numpy())
        left, values, right = np.linalg.svd(step)
        expected = (left[:, :3] * values[:3]) @ right[:3]
        np.testing.assert_allclose(side, expected, atol=1e-6)
        np.testing.assert_allclose(found, x.numpy() @ expected.T, atol=1e-5)
    directions = lora_sb(3, step=0.0)
    directions.calibrate_by({"key_value": gradient()})
    assert torch.equal(directions.up, module.up)
    assert torch.equal(directions.down, module.down)
    assert not directions.delta().any()


def test_a_step_of_its_matrix_is_the_projection_of_a_full_one() -> None:
    module = lora_sb(3)
    module.calibrate_by({"key_value": gradient()})
    before = module.delta().detach()
    fixed = module.up.clone(), module.down.clone()
    x = torch.randn(2, 5, DIM, generator=seeded(5))
    full = torch.zeros(2 * DIM, DIM, requires_grad=True)

    def loss(keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return (keys * x.roll(1, 2)).sum() + (values * x.roll(2, 2)).sum()

    loss(*functional.linear(x, full).chunk(2, dim=-1)).backward()
    loss(*module(x)).backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    assert full.grad is not None
    for moved, whole, up, down in zip(
        (module.delta().detach() - before).chunk(2),
        full.grad.chunk(2),
        module.up,
        module.down,
        strict=True,
    ):
        expected = -0.1 * up @ (up.T @ whole @ down.T) @ down
        torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(module.up, fixed[0])
    assert torch.equal(module.down, fixed[1])


def test_sizes_and_what_does_not_fit() -> None:
    assert [value.numel() for value in lora_sb(4).parameters()] == [2 * 4 * 4]
    assert set(lora_sb(4).state_dict()) == {"mix", "up", "down", "has_seen"}
    with pytest.raises(InputError, match="`step` must not be negative, got -1"):
        lora_sb(2, step=-1)
    with pytest.raises(InputError, match="`rank` must be at most the width, 8, got 9"):
        lora_sb(9)
    with pytest.raises(InputError, match="a stored set must hold another kind .*: it sets itself"):
        AdapterStack.build(
            PEFTS["lora_sb"],
            embed_dim=32,
            blocks=2,
            generator=seeded(),
            sites=tiny_backbone().site,
        )
