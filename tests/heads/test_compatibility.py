"""The loss of compatibility, against loops over images."""

import math

import pytest
import torch

from cl_adapters.heads.compatibility import compatibility_loss


def test_it_is_the_sum_over_images_that_the_paper_writes() -> None:
    draws = torch.Generator().manual_seed(0)
    new, old = (3 * torch.randn(6, 5, generator=draws, dtype=torch.float64) for _ in range(2))
    targets = torch.tensor([2, 7, 2, 0, 7, 2])
    total = 0.0
    for i, label in enumerate(targets):
        total += -10 * float(torch.cosine_similarity(old[i], new[i], dim=0))
        terms = [
            1.0  # exp(0)
            if other == label
            else math.exp(10 * float(torch.cosine_similarity(old[i], new[j], dim=0)))
            for j, other in enumerate(targets)
        ]
        total += math.log(sum(terms))
    assert float(compatibility_loss(new, old, targets)) == pytest.approx(total / 6)


def test_it_is_least_where_images_stay_and_classes_are_opposite() -> None:
    corners = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    targets = torch.tensor([0, 1])
    stays = compatibility_loss(corners, corners, targets)
    assert float(stays) == pytest.approx(-10 + math.log(1 + math.exp(-10)))
    assert compatibility_loss(corners.flip(0), corners, targets) > stays + 15
    assert torch.equal(compatibility_loss(7 * corners, 3 * corners, targets), stays)
