"""LoRA-XS against numpy's singular values and the averages of its sets."""

import numpy as np
import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.peft.lora_xs import LoRAXS, singular_parts
from cl_adapters.peft.site import Site


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lora_xs(weight: torch.Tensor | None, rank: int, start: str = "zero") -> LoRAXS:
    site = Site("key_value", 0, 8, 16, weight)
    return LoRAXS(8, rank, start=start, generator=seeded(), sites={"key_value": site})  # type: ignore[arg-type]


WEIGHT = torch.randn(16, 8, generator=seeded(3))


def test_with_the_unit_matrix_it_adds_the_largest_part_of_the_frozen_weights() -> None:
    module = lora_xs(WEIGHT, 3)
    x = torch.randn(2, 5, 8, generator=seeded(4))
    assert not any(each.any() for each in module(x))
    module.mix.data[:] = torch.eye(3)
    for found, rows in zip(
        module(x), WEIGHT.numpy().astype(np.float64).reshape(2, 8, 8), strict=True
    ):
        values, vectors = np.linalg.eigh(rows.T @ rows)
        assert values[-3] > values[-4]
        largest = rows @ vectors[:, -3:] @ vectors[:, -3:].T
        np.testing.assert_allclose(found.detach(), x.numpy() @ largest.T, atol=1e-5)
    up, down = singular_parts(-WEIGHT, 3)
    assert (up.gather(0, up.abs().argmax(dim=0, keepdim=True)) > 0).all()
    torch.testing.assert_close(
        up @ down, -singular_parts(WEIGHT, 3)[0] @ singular_parts(WEIGHT, 3)[1]
    )


def test_the_matrix_alone_is_trained_and_kept() -> None:
    module = lora_xs(WEIGHT, 3)
    before = module.up.clone(), module.down.clone()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    x = torch.randn(2, 5, 8, generator=seeded(4))
    sum((each * x.roll(1, 2)).sum() for each in module(x)).backward()
    optimizer.step()
    assert all(map(torch.equal, before, (module.up, module.down)))
    assert (module.mix != 0).all()
    assert [*module.state_dict()] == ["mix"]


@torch.no_grad()
def test_an_average_of_sets_is_the_average_of_their_updates() -> None:
    one, two, mean = (lora_xs(WEIGHT, 2) for _ in range(3))
    one.mix.normal_(generator=seeded(1))
    two.mix.normal_(generator=seeded(2))
    mean.mix.copy_((one.mix + two.mix) / 2)
    torch.testing.assert_close(mean.delta(), (one.delta() + two.delta()) / 2)


def test_starts_sizes_and_what_does_not_fit() -> None:
    assert lora_xs(WEIGHT, 8, "official").mix.std().item() == pytest.approx(1e-5, rel=0.2)
    assert lora_xs(WEIGHT, 4).mix.numel() == 2 * 16
    with pytest.raises(InputError, match="`rank` must be at most the width, 8, got 9"):
        lora_xs(WEIGHT, 9)
    with pytest.raises(InputError, match="LoRA-XS must stand beside frozen weights, got a site"):
        lora_xs(None, 2)
