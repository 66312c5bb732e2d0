"""How means move with features, against plain loops and the brief's numbers (11.7, 16.2)."""

import math

import pytest
import torch

from cl_adapters.heads.drift import centroid_shift, kernel_shift


def test_the_worked_example_11_7_1() -> None:
    before, after = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.0], [2.0, 1.0]])
    found = kernel_shift(before, after, torch.zeros(1, 2), 4.0)
    near, far = 1 + 1e-5, math.exp(-4 / 32) + 1e-5
    expected = [near / (near + far), far / (near + far)]
    assert found[0].tolist() == pytest.approx(expected)
    assert found[0].tolist() == pytest.approx([0.531, 0.469], abs=5e-4)


def test_shifts_equal_a_loop_over_means_and_images() -> None:
    draws = torch.Generator().manual_seed(0)
    before, after, means = (torch.randn(n, 3, generator=draws) for n in (7, 7, 4))
    found = kernel_shift(before, after, means, 0.8)
    for mean, shift in zip(means, found, strict=True):
        weights = [
            math.exp(-sum((a - b) ** 2 for a, b in zip(row, mean.tolist(), strict=True)) / 1.28)
            + 1e-5
            for row in before.tolist()
        ]
        expected = sum(
            weight * (new - old) for weight, new, old in zip(weights, after, before, strict=True)
        ) / sum(weights)
        torch.testing.assert_close(shift, expected, rtol=1e-4, atol=1e-5)


def test_a_wide_kernel_and_one_at_its_floor_give_the_mean_difference_11_7_2() -> None:
    draws = torch.Generator().manual_seed(0)
    before = torch.randn(20, 768, generator=draws)  # squared distances of about 1,500
    after = before + torch.randn(20, 768, generator=draws)
    means = torch.randn(3, 768, generator=draws)
    plain = (after.mean(dim=0) - before.mean(dim=0)).expand(3, -1)
    torch.testing.assert_close(kernel_shift(before, after, means, math.inf), plain)
    torch.testing.assert_close(kernel_shift(before, after, means, 4.0), plain, atol=1e-3, rtol=0)
    # Which pairs are made then does not matter; near a mean it does.
    mixed = after[torch.randperm(20, generator=draws)]
    torch.testing.assert_close(kernel_shift(before, mixed, means, 4.0), plain, atol=1e-3, rtol=0)
    wide = [kernel_shift(before, each, means, 30.0) for each in (after, mixed)]
    assert not torch.allclose(wide[0], wide[1], atol=1e-3)


def test_nothing_moves_what_stands_still_11_7_3() -> None:
    before = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    assert not kernel_shift(before, before, torch.randn(4, 5), 4.0).any()
    assert not centroid_shift(before, before.clone()).any()


def test_the_worked_example_of_centroids_16_2() -> None:
    before = torch.tensor([[-1.0, 3.0], [1.0, -3.0]])
    assert centroid_shift(before, before + 1).tolist() == [1.0, 1.0]
