"""Least squares on the strongest directions, against NumPy over all samples at once."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.heads.linear import UNSEEN_LOGIT
from cl_adapters.heads.ridge import RidgeHead, choose_strength
from cl_adapters.heads.truncated import Directions, TruncatedHead


def samples(count: int = 40, size: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(count, size, generator=generator) + torch.randn(
        count, size, generator=generator
    ).clamp_min(0)
    return rows, torch.arange(count) % 4


def fitted(
    rows: Tensor, targets: Tensor, *, parts: int, rank: int = 1000, share: float = 1.0
) -> TruncatedHead:
    head = TruncatedHead(rows.shape[1], rank=rank, share=share, scale=1.0)
    for some, known in zip(rows.split(parts), targets.split(parts), strict=True):
        head.add_classes(torch.unique(known).tolist())
        head.add(some, known)
    head.solve(0.0)
    return head


def one_hot(targets: Tensor) -> np.ndarray:
    return np.eye(int(targets.max()) + 1)[targets.numpy()]


@pytest.mark.parametrize("parts", [40, 16, 7, 1])
@pytest.mark.parametrize("size", [60, 25])  # more features than samples, and fewer
def test_with_all_directions_it_is_least_squares(size: int, parts: int) -> None:
    rows, targets = samples(size=size)
    head = fitted(rows, targets, parts=parts)
    expected = np.linalg.pinv(rows.double().numpy()) @ one_hot(targets)
    np.testing.assert_allclose(head.weight.T.numpy(), expected, atol=2e-4)
    assert head.directions.basis.shape == (size, min(40, size))


def test_the_strongest_directions_are_those_of_one_decomposition() -> None:
    # The last of them are so weak that dropping them on the way costs nothing.
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(50, 6, generator=generator) @ torch.randn(6, 30, generator=generator)
    rows += 1e-4 * torch.randn(50, 30, generator=generator)
    targets = torch.arange(50) % 3
    head = fitted(rows, targets, parts=9, rank=6)
    left, values, right = np.linalg.svd(rows.double().numpy(), full_matrices=False)
    np.testing.assert_allclose(head.directions.values.numpy(), values[:6], rtol=1e-5)
    kept = (right[:6].T / values[:6]) @ left[:, :6].T @ one_hot(targets)
    np.testing.assert_allclose(head.weight.T.numpy(), kept, atol=1e-4)


def test_directions_stay_orthonormal() -> None:
    rows, targets = samples(120, 60)
    rows[30:60] = rows[:30]  # nothing new in them
    head = fitted(rows, targets, parts=10, rank=45)
    torch.testing.assert_close(
        head.directions.basis.T @ head.directions.basis, torch.eye(45), atol=1e-5, rtol=0
    )


def test_directions_stay_orthonormal_over_many_updates() -> None:
    # Weak samples turn them little, and each update rounds them once more.
    generator = torch.Generator().manual_seed(2)
    directions = Directions(24, rank=12, share=1.0)
    directions.add(torch.rand(24, 24, generator=generator).double())
    for _ in range(600):
        directions.add(1e-3 * torch.rand(24, 1, generator=generator).double())
    apart = directions.basis.T @ directions.basis - torch.eye(12)
    assert apart.abs().max() < 3e-7  # 8e-7 if roundings add up


def test_with_many_projections_it_is_no_worse_than_a_ridge_whose_strength_is_chosen() -> None:
    # Overlapping classes, more projections than samples: plain least squares would fit the noise.
    draws = torch.Generator().manual_seed(3)
    centres, weight = torch.randn(5, 16, generator=draws), torch.randn(16, 2000, generator=draws)
    targets = torch.arange(700) % 5
    rows = torch.relu((centres[targets] + 1.5 * torch.randn(700, 16, generator=draws)) @ weight)
    truncated, ridge = TruncatedHead(2000, rank=1000, share=0.75), RidgeHead(2000)
    for head in (truncated, ridge):
        head.add_classes(range(5))
        head.add(rows[:200], targets[:200])
    truncated.solve(0.0)
    ridge.solve(choose_strength(rows[:200], targets[:200], draws) or 1.0)
    right = [
        float((head(rows[200:]).argmax(dim=1) == targets[200:]).float().mean())
        for head in (truncated, ridge)
    ]
    assert min(right) > 0.5
    assert right[0] > right[1] - 0.1


def test_no_more_directions_than_a_share_of_the_samples() -> None:
    rows, targets = samples()
    head = TruncatedHead(60, rank=25, share=0.75)
    head.add_classes(range(4))
    counts = []
    for some, known in zip(rows.split(20), targets.split(20), strict=True):
        head.add(some, known)
        counts.append(len(head.directions.values))
    assert counts == [15, 25]
    few = fitted(rows[:, :20], targets, parts=10, share=0.75)  # 40 samples of 20 features
    assert few.directions.basis.shape == (20, 15)


def test_a_strength_damps_what_is_kept() -> None:
    rows, targets = samples()
    head = fitted(rows, targets, parts=40)
    head.solve(3.0)
    h = rows.double().numpy()
    expected = np.linalg.solve(h.T @ h + 3 * np.eye(60), h.T @ one_hot(targets))
    np.testing.assert_allclose(head.weight.T.numpy(), expected, atol=1e-4)


def test_classes_without_a_sample_are_never_answered() -> None:
    rows, targets = samples()
    head = fitted(rows, targets, parts=40)
    head.add_classes([6])
    answers = head(rows)
    assert (answers[:, 4:] == UNSEEN_LOGIT).all()
    torch.testing.assert_close(answers[:, :4], rows @ head.weight[:4].T)


def test_samples_of_zeros_or_equal_ones_are_taken() -> None:
    for rows in (torch.zeros(3, 5), torch.ones(3, 5)):
        head = fitted(rows, torch.tensor([0, 1, 1]), parts=1)
        assert torch.isfinite(head.weight).all()
        assert len(head.directions.values) == 1


def test_a_state_brings_back_directions_and_answers() -> None:
    rows, targets = samples()
    head, other = fitted(rows, targets, parts=40), TruncatedHead(60, rank=1000, share=1.0)
    other.load_state_dict(head.state_dict())
    for each in (head, other):
        each.add(rows + 1, targets)
        each.solve(0.0)
    assert torch.equal(other.weight, head.weight)


def test_more_directions_than_memory_holds_are_refused_with_what_they_take() -> None:
    with pytest.raises(InputError, match="1,000,000 directions of 8,000,000 .* got 32,000 GB"):
        TruncatedHead(8_000_000, rank=1_000_000)
