"""FeCAM's head against NumPy and plain loops, and the worked numbers of its formulas."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cl_adapters.heads.linear import UNSEEN_LOGIT
from cl_adapters.heads.mahalanobis import MahalanobisHead, correlations, shrunk, tukey


def sample(per_class: int = 9, classes: int = 3, size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(classes).repeat(per_class)
    mix = torch.randn(classes, size, size, generator=generator)
    centres = 2 * torch.randn(classes, size, generator=generator)
    noise = torch.randn(len(targets), size, generator=generator)
    rows = centres[targets] + torch.einsum("nd,nde->ne", noise, mix[targets])
    return rows, targets


def fitted(rows: Tensor, targets: Tensor, **options: Any) -> MahalanobisHead:
    head = MahalanobisHead(rows.shape[1], **options)
    head.add_classes(torch.unique(targets).tolist())
    head.add(rows, targets)
    return head


def expected(
    rows: Tensor, targets: Tensor, asked: Tensor, form: str, a1: float = 1, a2: float = 0
) -> np.ndarray:
    """The distances, class by class and image by image, with NumPy."""
    known, wanted, labels = (each.double().numpy() for each in (rows, asked, targets))
    unit = known / np.linalg.norm(known, axis=1, keepdims=True)
    found = np.zeros((len(wanted), int(labels.max()) + 1))
    for c in range(found.shape[1]):
        own = (unit if form == "authors" else known)[labels == c]
        mean, sigma = own.mean(axis=0), np.cov(own.T)
        if form == "pilot":
            mean = mean / np.linalg.norm(mean)
            matrix = np.corrcoef(sigma + 100 * np.eye(len(sigma)))
        else:
            off = sigma[~np.eye(len(sigma), dtype=bool)].mean()
            sigma = sigma + a1 * np.diag(sigma).mean() * np.eye(len(sigma))
            sigma = sigma + a2 * off * (1 - np.eye(len(sigma)))
            s = np.sqrt(np.diag(sigma))
            matrix = sigma / np.outer(s, s)
        # As torch cuts in float32, where the authors compute: rows' correlations are singular.
        rcond = len(matrix) * np.finfo(np.float32).eps
        inverse = np.linalg.pinv(matrix, rcond, hermitian=True)
        for i, row in enumerate(wanted):
            apart = row / np.linalg.norm(row) - mean
            found[i, c] = apart @ inverse @ apart
    return found


def test_the_worked_numbers() -> None:
    rows = torch.tensor([[0.5, 2.0], [1.5, 1.0], [1.0, 3.0]], dtype=torch.float64)
    sigma = torch.cov(rows.T)
    assert sigma.tolist() == [[0.25, -0.25], [-0.25, 1.0]]
    matrix = correlations(shrunk(sigma, 1, 0))
    assert matrix[0, 1].item() == pytest.approx(-0.2097, abs=5e-5)
    apart = torch.tensor([0.1, -0.2], dtype=torch.float64)
    assert (apart @ torch.linalg.pinv(matrix) @ apart).item() == pytest.approx(0.0435, abs=5e-5)
    # -0.25 is all there is off the diagonal, so that a2 = 2 makes three times of it.
    assert shrunk(sigma, 0, 2).tolist() == [[0.25, -0.75], [-0.75, 1.0]]


@pytest.mark.parametrize(
    ("form", "shrinkage"),
    [("authors", (1, 0)), ("authors", (10, 10)), ("authors", (0, 0)), ("pilot", (1, 0))],
)
def test_distances_are_those_of_plain_loops(form: Any, shrinkage: tuple[float, float]) -> None:
    # Nine samples of six numbers; with five of them and no shrinkage there is no plain inverse.
    for per_class in (9, 5):
        rows, targets = sample(per_class)
        asked = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
        head = fitted(rows, targets, form=form, shrinkage=shrinkage)
        wanted = torch.from_numpy(expected(rows, targets, asked, form, *shrinkage)).float()
        torch.testing.assert_close(head.distances(asked), wanted, rtol=1e-3, atol=1e-3)


def test_any_order_and_split_of_the_samples_gives_the_same() -> None:
    rows, targets = sample()
    whole, parts = fitted(rows, targets), MahalanobisHead(6)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(2))
    for classes, part in zip(([2], [0, 1, 2], []), order.split(9), strict=True):
        parts.add_classes(classes)
        known = torch.isin(targets[part], parts.labels)
        parts.add(rows[part][known], targets[part][known])
        parts(rows[:1])  # what is kept between is not taken for what it was
    parts.add_classes([0, 1])
    left = order[:9][targets[order[:9]] != 2]
    parts.add(rows[left], targets[left])
    torch.testing.assert_close(parts.distances(rows), whole.distances(rows), rtol=1e-4, atol=1e-4)


def test_much_shrinkage_gives_the_nearest_mean_of_unit_features() -> None:
    rows, targets = sample()
    unit = torch.nn.functional.normalize(rows, dim=1)
    means = torch.stack([unit[targets == each].mean(dim=0) for each in range(3)])
    head = fitted(rows, targets, shrinkage=(1e6, 0))
    torch.testing.assert_close(
        head.distances(rows), torch.cdist(unit, means) ** 2, rtol=1e-4, atol=1e-5
    )


def test_matrices_are_symmetric_with_ones_on_the_diagonal_and_distances_not_negative() -> None:
    rows, targets = sample(5)
    head = fitted(rows, targets)
    for row in range(3):
        matrix = head.matrix(row)
        torch.testing.assert_close(matrix, matrix.T)
        torch.testing.assert_close(matrix.diagonal(), torch.ones(6).double())
    assert head.distances(torch.randn(20, 6)).min() >= 0


def test_pilots_rows_double_the_correlations() -> None:
    # A covariance that is small beside 100: 2 S_ij / 100 - 1 / (D - 1), to one per cent.
    size = 64
    factor = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).double() / size
    small = factor @ factor.T
    head = MahalanobisHead(size, form="pilot")
    head.covariance = lambda _: small  # type: ignore[method-assign]
    off = ~torch.eye(size, dtype=torch.bool)
    found, wanted = head.matrix(0)[off], (2 * small / 100 - 1 / (size - 1))[off]
    assert (found - wanted).abs().max() < 0.01 * wanted.std() + 1e-4


def test_a_class_without_spread_takes_that_of_an_average_class() -> None:
    rows, targets = sample()
    rows = torch.cat([rows, torch.ones(1, 6), torch.full((4, 6), -0.3)])
    targets = torch.cat([targets, torch.tensor([3, 4, 4, 4, 4])])
    head = fitted(rows, targets)
    average = sum(head.covariance(each) for each in range(3)) / 3
    for row in (3, 4):
        torch.testing.assert_close(head.covariance(row), average)
    assert torch.isfinite(head(rows)).all()
    alone = fitted(torch.ones(1, 6), torch.tensor([0]))
    assert torch.equal(alone.covariance(0), torch.eye(6).double())
    later = torch.randn(5, 6)
    alone.add(later, torch.zeros(5, dtype=torch.int64))
    assert not torch.equal(alone.covariance(0), torch.eye(6).double())


def test_a_late_class_changes_the_average_that_one_without_spread_takes() -> None:
    rows, targets = sample()
    head = MahalanobisHead(6)
    head.add_classes([3, 0])
    first = targets == 0
    head.add(
        torch.cat([rows[first], torch.ones(1, 6)]),
        torch.cat([targets[first], torch.tensor([3])]),
    )
    head(rows)
    head.add_classes([1, 2])
    head.add(rows[~first], targets[~first])
    whole = fitted(torch.cat([rows, torch.ones(1, 6)]), torch.cat([targets, torch.tensor([3])]))
    torch.testing.assert_close(head.distances(rows), whole.distances(rows), rtol=1e-4, atol=1e-4)


def test_logits_are_a_softmax_over_the_classes_with_samples() -> None:
    rows, targets = sample()
    head = fitted(rows, targets, scale=3.0)
    head.add_classes([5])
    logits = head(rows)
    assert logits.shape == (27, 6)
    assert (logits[:, [3, 4, 5]] == UNSEEN_LOGIT).all()
    torch.testing.assert_close(logits[:, :3], (-3 * head.distances(rows)[:, :3]).log_softmax(dim=1))
    far = fitted(rows, targets, scale=1e6)(rows)
    assert (far[:, :3].max(dim=1).values > UNSEEN_LOGIT).all()


def test_a_state_brings_back_the_answers_whatever_was_known_before() -> None:
    rows, targets = sample()
    head, other = fitted(rows, targets), fitted(rows + 1, targets)
    other(rows)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(rows), head(rows))


def test_the_power_is_of_the_size_of_a_number() -> None:
    rows, targets = sample()
    raised = rows.sign() * rows.abs().sqrt()
    head, plain = fitted(rows, targets, power=0.5), fitted(raised, targets)
    torch.testing.assert_close(head(rows), plain(raised), rtol=1e-4, atol=1e-4)
    assert tukey(rows, 1) is rows
