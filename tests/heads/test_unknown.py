"""Scores of strange images against plain loops, scikit-learn and SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine, mahalanobis
from scipy.special import logsumexp, softmax
from sklearn.covariance import OAS

from cl_adapters.errors import InputError
from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.heads.unknown import SCORES, Score, make_score

NUM_FEATURES = 5


def known(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes, of which number 1 has no images."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 2, 3], [30, 12, 20])
    centres = 3 * rng.normal(size=(4, NUM_FEATURES)) + 7
    mixing = rng.normal(size=(NUM_FEATURES, NUM_FEATURES))
    points = centres[labels] + rng.normal(size=(len(labels), NUM_FEATURES)) @ mixing
    return torch.tensor(points, dtype=torch.float32), torch.tensor(labels)


def fitted(name: str, *, parts: int = 1) -> Score:
    score = make_score(name, NUM_FEATURES)
    points, labels = known()
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(1))
    for rows in order.tensor_split(parts):
        score.add(points[rows], labels[rows])
    return score


def test_scores_of_logits_are_scipys() -> None:
    logits = torch.tensor([[1.0, 2.0, -1000.0], [0.0, 0.0, 0.0], [-3.0, 9.0, 12.0]])
    probabilities = [softmax(row).max() for row in logits.numpy().astype(float)]
    found = fitted("probability")(logits).tolist()
    assert found == pytest.approx([math.log(1 / each - 1) for each in probabilities])
    energies = [-logsumexp(row) for row in logits.numpy().astype(float)]
    assert fitted("energy")(logits).tolist() == pytest.approx(energies)


def test_nearly_certain_answers_are_still_told_apart() -> None:
    # Both largest probabilities are 1 in float64.
    first, second = fitted("probability")(torch.tensor([[40.0, 0.0], [50.0, 0.0]])).tolist()
    assert first == pytest.approx(-40)
    assert second == pytest.approx(-50)


def test_the_probability_of_the_only_class_is_a_finite_score() -> None:
    found = fitted("probability")(torch.tensor([[3.0], [-3.0]]))
    assert bool(torch.isfinite(found).all())
    assert found[0] == found[1]


def test_mahalanobis_is_scipys_to_the_nearest_class_with_images() -> None:
    points, labels = known()
    head = LinearDiscriminant(NUM_FEATURES)  # its covariance is tested against scikit-learn
    head.add_classes([3])
    head.add(points, labels)
    inverse = np.linalg.inv(head.covariance.numpy())
    means = [points[labels == label].double().mean(dim=0).numpy() for label in (0, 2, 3)]
    strange = torch.randn(40, NUM_FEATURES, generator=torch.Generator().manual_seed(2)) * 9
    expected = [min(mahalanobis(row, mean, inverse) ** 2 for mean in means) for row in strange]
    for parts in (1, 4):
        found = fitted("mahalanobis", parts=parts)(strange)
        assert found.dtype == torch.float64
        assert found.tolist() == pytest.approx(expected)


def test_relative_mahalanobis_subtracts_the_distance_to_all_images() -> None:
    points, labels = known()
    one = LinearDiscriminant(NUM_FEATURES)
    one.add_classes([0])
    one.add(points, torch.zeros_like(labels))
    inverse = np.linalg.inv(one.covariance.numpy())
    mean = points.double().mean(dim=0).numpy()
    strange = points[::7] * 1.5
    subtracted = [mahalanobis(row, mean, inverse) ** 2 for row in strange]
    expected = fitted("mahalanobis")(strange) - torch.tensor(subtracted)
    assert fitted("relative")(strange).tolist() == pytest.approx(expected.tolist())
    # The covariance of all images is near scikit-learn's, which leaves out terms in 2 / D.
    theirs = OAS().fit(points.numpy()).covariance_
    assert np.abs(one.covariance.numpy() - theirs).max() < 0.15 * theirs.trace() / NUM_FEATURES


def test_cosine_is_scipys_to_the_nearest_class_mean() -> None:
    points, labels = known()
    means = [points[labels == label].mean(dim=0) for label in (0, 2, 3)]
    strange = torch.randn(10, NUM_FEATURES, generator=torch.Generator().manual_seed(3))
    expected = [min(cosine(row, mean) for mean in means) for row in strange]
    assert fitted("cosine")(strange).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", SCORES)
def test_a_state_brings_back_the_score(name: str) -> None:
    score, other = fitted(name), make_score(name, NUM_FEATURES)
    other.load_state_dict(score.state_dict())
    rows = known(seed=4)[0]
    assert torch.equal(score(rows), other(rows))


@pytest.mark.parametrize("name", ["mahalanobis", "relative", "cosine"])
def test_what_is_far_from_all_classes_is_stranger_than_what_it_was_fitted_on(name: str) -> None:
    score, (points, _) = fitted(name), known()
    assert score(-points).median() > score(points).quantile(0.95)


def test_one_image_a_class_leaves_no_spread_and_is_no_error() -> None:
    score = make_score("mahalanobis", 2)
    score.add(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([0, 1]))
    assert score(torch.tensor([[0.0, 1.0]])).tolist() == pytest.approx([1.0])


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(InputError, match="unknown score 'mahalanobi'; did you mean 'mahalanobis'"):
        make_score("mahalanobi", 2)
    for name in ("mahalanobis", "relative", "cosine"):
        with pytest.raises(InputError, match="must have seen images of known classes, got none"):
            make_score(name, 2)(torch.zeros(1, 2))
