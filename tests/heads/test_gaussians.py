"""Class Gaussians against numpy's covariance and the moments of what is drawn."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.heads.gaussians import FLOOR, ClassGaussians, Statistics

DIM = 6


def cloud(count: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(DIM, DIM, generator=generator)
    return torch.randn(count, DIM, generator=generator) @ mixing + shift


def covariance(classes: ClassGaussians, component: int = 0) -> np.ndarray:
    factor = classes.factors[component].double().numpy()
    return factor.T @ factor + np.diag(classes.spreads[component].double().numpy() ** 2)


@pytest.mark.parametrize("count", [3, 6, 50])  # fewer images than features, as many, more
def test_full_statistics_are_the_unbiased_covariance_with_a_floor(count: int) -> None:
    features = cloud(count)
    classes = ClassGaussians(DIM, "full")
    classes.add(0, features)
    expected = np.cov(features.double().numpy(), rowvar=False) + FLOOR * np.eye(DIM)
    np.testing.assert_allclose(covariance(classes), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(classes.means[0], features.mean(dim=0), rtol=1e-5, atol=1e-6)


def test_low_rank_keeps_the_strongest_directions_and_the_whole_diagonal() -> None:
    features = cloud(50)
    classes = ClassGaussians(DIM, "low_rank", rank=2)
    classes.add(0, features)
    whole = np.cov(features.double().numpy(), rowvar=False)
    assert classes.factors.shape == (1, 2, DIM)
    np.testing.assert_allclose(
        np.diag(covariance(classes)), np.diag(whole) + FLOOR, rtol=1e-4, atol=1e-5
    )
    factor = classes.factors[0].double().numpy()
    values, vectors = np.linalg.eigh(whole)
    top = vectors[:, -2:] @ np.diag(values[-2:]) @ vectors[:, -2:].T
    np.testing.assert_allclose(factor.T @ factor, top, rtol=1e-4, atol=1e-4)


def test_low_rank_of_few_images_loses_nothing() -> None:
    features = cloud(5)
    full, low = ClassGaussians(DIM, "full"), ClassGaussians(DIM, "low_rank", rank=4)
    full.add(0, features)
    low.add(0, features)
    np.testing.assert_allclose(covariance(full), covariance(low), rtol=1e-4, atol=1e-5)


def test_diagonal_keeps_variances_only() -> None:
    features = cloud(50)
    classes = ClassGaussians(DIM, "diagonal")
    classes.add(0, features)
    expected = np.diag(features.double().numpy().var(axis=0, ddof=1) + FLOOR)
    np.testing.assert_allclose(covariance(classes), expected, rtol=1e-4)


def test_centroids_find_two_clouds_and_their_biased_variances() -> None:
    near, far = cloud(30, seed=1), cloud(10, seed=2, shift=100)
    classes = ClassGaussians(DIM, "centroids", centroids=2)
    classes.add(3, torch.cat([near, far]))
    order = torch.argsort(classes.shares, descending=True)
    assert classes.shares[order].tolist() == [30, 10]
    for component, rows in zip(order.tolist(), (near, far), strict=True):
        np.testing.assert_allclose(classes.means[component], rows.mean(dim=0), rtol=1e-4, atol=1e-4)
        expected = np.diag(rows.double().numpy().var(axis=0) + FLOOR)
        np.testing.assert_allclose(covariance(classes, component), expected, rtol=1e-3)
    torch.testing.assert_close(
        classes.class_means()[0], torch.cat([near, far]).mean(dim=0), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("kind", get_args(Statistics))
def test_samples_have_the_moments_that_were_kept(kind: Statistics) -> None:
    classes = ClassGaussians(DIM, kind, rank=3, centroids=2)
    for label, seed in ((4, 1), (1, 2)):
        classes.add(label, cloud(40, seed=seed, shift=5 * label))
    features, labels = classes.sample(60_000, torch.Generator().manual_seed(0))
    assert labels.unique(return_counts=True)[1].tolist() == [60_000, 60_000]
    for label in (1, 4):
        drawn = features[labels == label].double()
        parts = (classes.labels == label).nonzero()[:, 0].tolist()
        shares = (classes.shares[parts] / classes.shares[parts].sum()).double().numpy()
        means = classes.means[parts].double().numpy()
        mean = shares @ means
        spread = sum(
            share * (covariance(classes, part) + np.outer(own - mean, own - mean))
            for share, part, own in zip(shares, parts, means, strict=True)
        )
        scale = np.sqrt(np.outer(np.diag(spread), np.diag(spread)))
        np.testing.assert_allclose(drawn.mean(dim=0), mean, atol=0.03 * np.sqrt(scale.max()))
        np.testing.assert_allclose(np.cov(drawn.T.numpy()) / scale, spread / scale, atol=0.03)


def test_a_class_that_returns_is_a_mixture_by_numbers_of_images() -> None:
    classes = ClassGaussians(DIM, "full")
    classes.add(0, cloud(10))
    classes.add(0, cloud(30, seed=1, shift=50))
    mean = torch.cat([cloud(10), cloud(30, seed=1, shift=50)]).mean(dim=0)
    torch.testing.assert_close(classes.class_means()[0], mean, rtol=1e-4, atol=1e-3)
    features, labels = classes.sample(4000, torch.Generator().manual_seed(0))
    assert labels.unique().tolist() == [0]
    assert ((features.mean(dim=1) > 25).float().mean()).item() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("kind", get_args(Statistics))
def test_one_image_takes_the_spread_of_an_average_class(kind: Statistics) -> None:
    classes = ClassGaussians(DIM, kind)
    assert classes.add(0, cloud(40))
    assert not classes.add(1, cloud(1, seed=3))
    average = np.diag(sum(covariance(classes, part) for part in range(len(classes.labels) - 1)))
    average = average / (len(classes.labels) - 1)
    np.testing.assert_allclose(np.diag(covariance(classes, -1)), average, rtol=1e-3, atol=2 * FLOOR)
    assert bool(torch.isfinite(classes.sample(5, torch.Generator().manual_seed(0))[0]).all())


@pytest.mark.parametrize("alone", [0, 2])
def test_what_one_image_borrows_does_not_hang_on_its_label(alone: int) -> None:
    """It is fitted after the classes of the same experience that have a spread."""
    rows = 3 * torch.randn(101, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.ones(101, dtype=torch.long)
    labels[0] = alone
    found = ClassGaussians(2, kind="diagonal")
    assert found.add_all(rows, labels) == [alone]
    spreads = dict(zip(found.labels.tolist(), found.spreads, strict=True))
    assert torch.allclose(spreads[alone], rows[1:].std(dim=0), rtol=0.01)


@pytest.mark.parametrize("kind", get_args(Statistics))
def test_identical_features_and_the_very_first_image_give_a_narrow_class(kind: Statistics) -> None:
    for features in (torch.ones(7, DIM), torch.ones(1, DIM)):
        classes = ClassGaussians(DIM, kind)
        classes.add(0, features)
        drawn, _ = classes.sample(2000, torch.Generator().manual_seed(0))
        assert drawn.std().item() == pytest.approx(FLOOR**0.5, rel=0.05)


def test_features_that_are_not_numbers_are_refused_and_nothing_is_added() -> None:
    classes = ClassGaussians(DIM)
    features = cloud(4)
    features[1, 2] = torch.nan
    with pytest.raises(InputError, match="features of class 7 must be finite"):
        classes.add(7, features)
    assert len(classes.labels) == 0


def test_the_state_restores_every_component() -> None:
    classes = ClassGaussians(DIM, "full")
    classes.add(0, cloud(3))
    classes.add(1, cloud(9, seed=1))
    other = ClassGaussians(DIM, "full")
    other.load_state_dict(classes.state_dict())
    drawn = [each.sample(4, torch.Generator().manual_seed(0))[0] for each in (classes, other)]
    assert torch.equal(*drawn)


def test_a_thousand_classes_at_width_768_stay_below_a_gigabyte() -> None:
    classes = ClassGaussians(768)
    features = torch.randn(500, 768, generator=torch.Generator().manual_seed(0))
    classes.add(0, features)
    held = sum(value.nbytes for value in classes.state_dict().values())
    assert 1000 * held < 2**30
