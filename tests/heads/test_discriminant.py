"""The streaming discriminant against scikit-learn and against itself in another order."""

import numpy as np
import pytest
import torch
from sklearn.covariance import OAS
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.heads.linear import UNSEEN_LOGIT


def samples(seed: int = 0, num_features: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(num_features, num_features))
    targets = np.repeat([0, 1, 2], [40, 25, 60])
    centres = rng.normal(size=(3, num_features)) * 2
    points = centres[targets] + rng.normal(size=(len(targets), num_features)) @ mixing
    return torch.tensor(points, dtype=torch.float32), torch.tensor(targets)


def fitted(points: torch.Tensor, targets: torch.Tensor) -> LinearDiscriminant:
    head = LinearDiscriminant(points.shape[1])
    head.add_classes([0, 1, 2])
    head.add(points, targets)
    return head


def test_posteriors_equal_scikit_learns_with_the_same_covariance() -> None:
    points, targets = samples()
    head = fitted(points, targets)
    covariance = head.covariance.numpy()

    class Given:
        def fit(self, _: np.ndarray) -> "Given":
            self.covariance_ = covariance
            return self

    oracle = LinearDiscriminantAnalysis(
        solver="lsqr", covariance_estimator=Given(), priors=np.full(3, 1 / 3)
    ).fit(points.numpy(), targets.numpy())
    # scikit-learn weighs each class's covariance by its prior; ours is given to all of them.
    np.testing.assert_allclose(
        head(points).softmax(dim=1).numpy(), oracle.predict_proba(points.numpy()), atol=1e-4
    )


def test_the_shrunken_covariance_is_scikit_learns_oas_of_the_centred_samples() -> None:
    points, targets = samples()
    centred = points.double().clone()
    for group in range(3):
        centred[targets == group] -= centred[targets == group].mean(dim=0)
    size, count = centred.shape[1], len(centred)
    # The pooled covariance divides by n minus the number of groups; OAS sees the rest as n.
    scaled = centred.numpy() * np.sqrt(count / (count - 3))
    pooled = scaled.T @ scaled / count
    oas = OAS(assume_centered=True).fit(scaled)
    shrinkage = shrinkage_of(pooled, fitted(points, targets).covariance.numpy())
    assert 0 < shrinkage < 1
    # Equation 23 with n - 3 degrees of freedom; scikit-learn leaves out its terms in 2 / D.
    trace, square = np.trace(pooled), np.trace(pooled @ pooled)
    above = (1 - 2 / size) * square + trace**2
    below = (count - 3 + 1 - 2 / size) * (square - trace**2 / size)
    assert shrinkage == pytest.approx(above / below, rel=1e-6)
    assert shrinkage == pytest.approx(oas.shrinkage_, rel=0.1)
    mean_variance = np.trace(pooled) / size
    expected = (1 - shrinkage) * pooled + shrinkage * mean_variance * np.eye(size)
    np.testing.assert_allclose(fitted(points, targets).covariance.numpy(), expected, rtol=1e-9)


def shrinkage_of(pooled: np.ndarray, shrunken: np.ndarray) -> float:
    return float(1 - shrunken[0, 1] / pooled[0, 1])


def test_batches_in_any_order_and_size_give_the_same_classifier() -> None:
    points, targets = samples()
    whole = fitted(points, targets)
    split = LinearDiscriminant(points.shape[1])
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(1))
    for part in order.split(17):
        split.add_classes(targets[part].unique().tolist())
        split.add(points[part], targets[part])
    torch.testing.assert_close(split.covariance, whole.covariance)
    torch.testing.assert_close(split(points), whole(points))


def test_groups_that_come_later_leave_the_statistics_of_the_first_alone() -> None:
    points, targets = samples()
    early = LinearDiscriminant(points.shape[1])
    early.add_classes([0])
    early.add(points[targets == 0], targets[targets == 0])
    before = early.sums[0].clone()
    early.add_classes([1, 2])
    assert (early(points)[:, 1:] == UNSEEN_LOGIT).all()
    early.add(points[targets > 0], targets[targets > 0])
    assert torch.equal(early.sums[0], before)
    torch.testing.assert_close(early(points), fitted(points, targets)(points))


def test_the_state_comes_back_into_an_empty_discriminant() -> None:
    points, targets = samples()
    head = fitted(points, targets)
    other = LinearDiscriminant(points.shape[1])
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(points), head(points))


def test_what_all_groups_share_does_not_blur_the_logits() -> None:
    points, targets = samples()
    points = points.double()
    shift = torch.full((points.shape[1],), 1e4, dtype=torch.float64)
    head = fitted(points + shift, targets)
    torch.testing.assert_close(
        head(points + shift), fitted(points, targets)(points), rtol=1e-4, atol=1e-4
    )


def test_an_empty_group_is_never_the_likeliest() -> None:
    # Far from every group the unnormalised logits lie below the one of a group without samples.
    head = LinearDiscriminant(2)
    head.add_classes([2])
    spread = torch.tensor([[0.0, 0.01], [0.0, -0.01], [0.01, 0.0], [-0.01, 0.0]])
    centres = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    for group, centre in zip((0, 2), centres, strict=True):
        head.add(spread + centre, torch.full((4,), group))
    logits = head(torch.tensor([[0.0, 0.0], [0.9, 0.1], [2.1, -0.1]]))
    assert logits.argmax(dim=1).tolist() == [0, 0, 2]
    assert logits.softmax(dim=1)[:, 1].tolist() == [0.0, 0.0, 0.0]


def test_of_unit_length_only_the_direction_counts() -> None:
    points, targets = samples()
    directions = points / points.norm(dim=1, keepdim=True)
    head = LinearDiscriminant(points.shape[1], unit_length=True)
    head.add_classes([0, 1, 2])
    head.add(points, targets)
    torch.testing.assert_close(head(7 * points), fitted(directions, targets)(directions))


def test_one_sample_a_group_still_gives_finite_logits() -> None:
    head = LinearDiscriminant(3)
    head.add_classes([0, 1])
    head.add(torch.eye(3)[:2], torch.tensor([0, 1]))
    assert head(torch.eye(3)[:2]).argmax(dim=1).tolist() == [0, 1]
    assert torch.isfinite(head(torch.ones(1, 3))).all()
