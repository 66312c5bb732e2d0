"""Adapters of few bits: levels, gradients that go straight through, bytes."""

import math

import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.peft.onebit import OneBit, levels, pack, quantised, unpack


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_levels_are_medians_of_cells_whose_bounds_lie_midway() -> None:
    values, bounds = levels(2)
    expected = torch.tensor([-1.2657, -0.3778, 0.3778, 1.2657])
    torch.testing.assert_close(values, expected, atol=5e-5, rtol=0)
    torch.testing.assert_close(bounds, torch.tensor([-0.8217, 0, 0.8217]), atol=5e-5, rtol=0)
    assert levels(1)[0].tolist() == [
        pytest.approx(-0.6745, abs=5e-5),
        pytest.approx(0.6745, abs=5e-5),
    ]
    values, bounds = (each.tolist() for each in levels(4))

    def share(value: float) -> float:
        return 0.5 * (1 + math.erf(value / math.sqrt(2)))

    edges = [0.0, *map(share, bounds), 1.0]
    for number, value in enumerate(values):
        assert share(value) == pytest.approx((edges[number] + edges[number + 1]) / 2, abs=1e-5)
    with pytest.raises(InputError, match="`bits` must be 1, 2, 4 or 8, got 3"):
        levels(3)


def test_a_matrix_by_hand() -> None:
    found = quantised(torch.tensor([[0.1, 0.3], [-0.2, 0.6]]))
    expected = torch.tensor([[-0.0271, 0.4271], [-0.0271, 0.4271]])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert torch.equal(quantised(torch.full((2, 2), 0.3)), torch.full((2, 2), 0.3))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_matrix_has_few_values_and_its_bytes_give_them_back(bits: int) -> None:
    weight = 0.02 * torch.randn(13, 7, generator=seeded()) + 0.01
    found = quantised(weight, bits)
    assert len(found.unique()) <= 2**bits
    positive = (weight > weight.mean()).double().mean()
    if bits == 1:  # the mean moves by the imbalance of signs alone
        moved = weight.std() * levels(1)[0][1] * (2 * positive - 1)
        torch.testing.assert_close(found.mean(), weight.mean() + moved.float(), atol=1e-5, rtol=0)
    packed, moments = pack(weight, bits)
    assert torch.equal(unpack(packed, moments, (13, 7), bits), found)
    assert packed.numel() == math.ceil(91 * bits / 8)
    for constant in (torch.zeros(3, 3), torch.full((3, 3), 0.25)):
        assert torch.equal(unpack(*pack(constant), (3, 3)), constant)


def test_gradients_go_straight_through_and_through_mean_and_deviation() -> None:
    weight = torch.randn(4, 5, generator=seeded(), dtype=torch.float64, requires_grad=True)
    factors = torch.randn(4, 5, generator=seeded(1), dtype=torch.float64)
    (found,) = torch.autograd.grad((quantised(weight) * factors).sum(), weight)
    # Plain calculus: c = level + n - n0, with n0 a constant.
    value = weight.detach()
    mean, deviation = value.mean(), value.std()
    codes = torch.where(value > mean, 1, -1) * levels(1)[0][1].double()
    offset = codes - (value - mean) / (deviation + 1e-5)

    def smooth(other: torch.Tensor) -> torch.Tensor:
        normal = (other - other.mean()) / (other.std() + 1e-5)
        return ((normal + offset) * other.std() + other.mean()).mul(factors).sum()

    expected, step = torch.zeros_like(value), 1e-6
    for row, column in ((r, c) for r in range(4) for c in range(5)):
        moved = torch.zeros_like(value)
        moved[row, column] = step
        expected[row, column] = (smooth(value + moved) - smooth(value - moved)) / (2 * step)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert found.abs().min() > 0


def test_a_new_module_adds_nothing_and_its_first_gradient_is_finite() -> None:
    module = OneBit(8, 4, dropout=0, generator=seeded())
    x = torch.randn(2, 3, 8, generator=seeded(1))
    assert not module(x).any()
    (module(x) * x).sum().backward()
    assert module.up.grad is not None
    assert torch.isfinite(module.up.grad).all()
    assert module.up.grad.any()
    with torch.no_grad():
        module.up.sub_(module.up.grad)
    down, up = quantised(module.down), quantised(module.up)
    for image, token in ((i, t) for i in range(2) for t in range(3)):
        hidden = (down @ x[image, token]).clamp_min(0)
        torch.testing.assert_close(module(x)[image, token], up @ hidden)


def test_the_authors_start_and_what_is_stored() -> None:
    module = OneBit(768, 32, start="official", generator=seeded())
    assert 0.0019 < module.up.abs().max() <= 0.002
    assert module.up.std().item() == pytest.approx(8.8e-4, rel=0.02)  # of a normal cut at 2
    stored = [pack(value) for value in module.parameters()]
    assert sum(each.numel() * each.element_size() for pair in stored for each in pair) == 6_160
