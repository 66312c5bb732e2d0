"""Every detector: its level, a planted shift, purity, its state, bad input; and its arithmetic."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.covariance import LedoitWolf
from torch import Tensor

from cl_adapters.errors import InputError, RunError
from cl_adapters.shift import DETECTORS, Detector, find_detector
from cl_adapters.shift.hdc import HyperdimensionalMemory
from cl_adapters.shift.mahalanobis import Mahalanobis
from cl_adapters.shift.zscore import DescriptorZScore

DIM = 12


def draw(count: int, generator: torch.Generator, shift: float = 0.0) -> Tensor:
    """Features that depend on each other and have heavier tails than a Gaussian."""
    mixing = torch.randn(4, DIM, generator=torch.Generator().manual_seed(99))
    hidden = torch.randn(count, 4, generator=generator) + shift
    scales = 0.5 + torch.rand(count, 1, generator=generator)
    return hidden @ mixing + 0.3 * scales * torch.randn(count, DIM, generator=generator)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fitted(name: str, seed: int = 0, count: int = 150) -> Detector:
    detector = find_detector(name)(DIM, seed=seed)
    detector.fit(draw(count, seeded(seed)))
    return detector


@pytest.fixture(params=DETECTORS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# KSWIN takes 0.3 ms a sample: it gets fewer windows here, and 208 from the suite of
# test_checks.py with `make slow`.
def test_known_windows_fire_no_more_often_than_stated(name: str) -> None:
    fired = []
    references, sizes = 12, [32] * 5 if name == "kswin" else [32, 128] * 5
    for seed in range(references):
        detector, fresh = fitted(name, seed), seeded(1000 + seed)
        fired += [detector.check(draw(size, fresh)).fired for size in sizes]
    # At a level of 1 %, 6 or more of 120 windows and 4 or more of 60 would come by chance less than
    # once in 200 times.
    most = 3 if name == "kswin" else 5
    assert stats.binom.sf(most, len(fired), 0.01) < 0.005
    assert sum(fired) <= most


def test_a_descriptor_does_not_mind_what_it_knows_too_well() -> None:
    """Images nearer to the reference than its own are no change, unless |z| is asked for."""
    verdicts = []
    for signed in (True, False):
        detector = DescriptorZScore(DIM, signed=signed)
        detector.fit(draw(150, seeded(0)))
        verdicts.append(detector.check(detector.centre.repeat(64, 1)))
    told, official = verdicts
    assert told.score < 0
    assert not told.fired
    assert official.score == pytest.approx(-told.score)
    assert official.fired


@pytest.mark.parametrize("size", [32, 128])
def test_a_planted_shift_is_found(name: str, size: int) -> None:
    detector = fitted(name)
    assert detector.check(draw(size, seeded(5), shift=3.0)).fired


def test_checking_changes_nothing_and_touches_no_global_chance(name: str) -> None:
    state, legacy = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    detector = fitted(name)
    windows = [draw(40, seeded(index), shift=index / 2) for index in range(4)]
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    verdicts = [detector.check(window) for window in windows]
    assert [detector.check(window) for window in reversed(windows)] == verdicts[::-1]
    assert all(torch.equal(before[key], value) for key, value in detector.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert (legacy == np.random.get_state()[1]).all()  # noqa: NPY002


def test_the_state_brings_back_the_verdicts(name: str) -> None:
    detector, other = fitted(name), find_detector(name)(DIM)
    other.load_state_dict(detector.state_dict())
    for index in range(3):
        window = draw(30 + index, seeded(index), shift=index)
        assert other.check(window) == detector.check(window)


def test_the_state_does_not_grow_with_the_reference(name: str) -> None:
    sizes = {
        sum(value.numel() for value in fitted(name, count=count).state_dict().values())
        for count in (20, 700)
    }
    assert len(sizes) == 1


def test_reset_forgets_the_reference_and_fitting_again_learns_anew(name: str) -> None:
    detector = fitted(name)
    detector.check(draw(60, seeded(1)))  # a threshold for this size of window, of this reference
    detector.reset()
    with pytest.raises(InputError, match="must be fitted before"):
        detector.check(draw(30, seeded(1)))
    detector.fit(draw(150, seeded(0)) + 50)
    window = draw(60, seeded(1)) + 50
    twin = find_detector(name)(DIM)
    twin.fit(draw(150, seeded(0)) + 50)
    assert detector.check(window) == twin.check(window)
    assert not detector.check(window).fired


def test_views_of_the_same_images_are_one_reference(name: str) -> None:
    detector = find_detector(name)(DIM)
    views = torch.stack([draw(100, seeded(index)) for index in range(3)])
    detector.fit(views)
    assert not detector.check(draw(64, seeded(7))).fired


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.full((20, DIM), torch.nan), "features must be finite"),
        (torch.zeros(20, DIM + 1), r"shape \(N, 12\), got \(20, 13\)"),
        (torch.zeros(3, DIM), r"at least \d+ samples, got 3"),
    ],
)
def test_bad_references_and_windows_are_refused(name: str, features: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_detector(name)(DIM).fit(features)
    if len(features) > 3:
        with pytest.raises(InputError, match=message):
            fitted(name).check(features)


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0])
def test_levels_outside_of_the_open_interval_are_refused(name: str, level: float) -> None:
    with pytest.raises(InputError, match=r"`false_alarm` must lie in \(0, 1\)"):
        find_detector(name)(DIM, false_alarm=level)


def test_unknown_detectors_suggest_the_near_ones() -> None:
    with pytest.raises(InputError, match="unknown detector 'mdd'; did you mean 'mmd'"):
        find_detector("mdd")


def test_the_official_descriptor_equals_a_plain_loop() -> None:
    reference = draw(70, seeded(3))
    detector = DescriptorZScore(
        DIM,
        seed=4,
        dim=3,
        epochs=3,
        signed=False,
        threshold=2.0,
        buffer=50,
        standardize=False,
    )
    detector.fit(reference)
    draws = seeded(4)
    weights = [torch.empty(3, DIM), torch.zeros(3), torch.empty(DIM, 3), torch.zeros(DIM)]
    for weight in (weights[0], weights[2]):
        bound = math.sqrt(6 / ((1 + 5) * weight.shape[1]))
        weight.uniform_(-bound, bound, generator=draws)
    velocity = [torch.zeros_like(weight) for weight in weights]
    errors: list[float] = []
    for epoch in range(3):
        rate = 0.01 * (1 + math.cos(math.pi * epoch / 3)) / 2
        order = torch.randperm(70, generator=draws)
        for start in (0, 32, 64):
            batch = reference[order[start : start + 32]]
            for weight in weights:
                weight.requires_grad_(True)
            restored = (batch @ weights[0].T + weights[1]) @ weights[2].T + weights[3]
            losses = ((restored - batch) ** 2).sum(dim=1) / DIM
            grads = torch.autograd.grad(losses.sum() / len(batch), weights)
            errors += losses.tolist()
            velocity = [
                0.9 * speed + grad + 5e-4 * weight.detach()
                for speed, grad, weight in zip(velocity, grads, weights, strict=True)
            ]
            weights = [
                weight.detach() - rate * speed
                for weight, speed in zip(weights, velocity, strict=True)
            ]
    last = errors[-50:]
    mean = sum(last) / 50
    spread = math.sqrt(sum((error - mean) ** 2 for error in last) / 49)
    window = draw(9, seeded(8))
    restored = (window @ weights[0].T + weights[1]) @ weights[2].T + weights[3]
    z = [abs(float(((a - b) ** 2).mean()) - mean) / spread for a, b in zip(restored, window)]  # noqa: B905
    verdict = detector.check(window)
    assert verdict.score == pytest.approx(sum(z) / 9, rel=1e-3)
    assert verdict.threshold == 2.0


def test_a_descriptor_that_diverges_says_so() -> None:
    detector = DescriptorZScore(DIM, threshold=2.0, standardize=False)
    with pytest.raises(RunError, match=r"errors must stay finite, .* diverged at lr=0.01"):
        detector.fit(draw(150, seeded(0)) + 500)


def test_standardized_features_make_the_scale_irrelevant() -> None:
    reference, window = draw(150, seeded(0)), draw(40, seeded(1), shift=0.5)
    verdicts = []
    for scale in (1.0, 1000.0):
        detector = DescriptorZScore(DIM)
        detector.fit(scale * (reference + 7))
        verdicts.append(detector.check(scale * (window + 7)).score)
    assert verdicts[0] == pytest.approx(verdicts[1], rel=1e-2)


def test_two_records_give_no_z() -> None:
    detector = DescriptorZScore(DIM, threshold=1.0)
    detector.fit(draw(20, seeded(0)))
    detector.count.fill_(2)
    assert (detector.z_scores(draw(5, seeded(1))) == 0).all()


def test_a_least_threshold_holds() -> None:
    for least, fires in ((0.0, True), (1e9, False)):
        detector = DescriptorZScore(DIM, min_shift=least)
        detector.fit(draw(150, seeded(0)))
        assert detector.check(draw(64, seeded(1), shift=3.0)).fired is fires


def test_mahalanobis_distances_are_those_of_scikit_learns_covariance() -> None:
    reference, window = draw(150, seeded(0)), draw(9, seeded(1))
    oracle = LedoitWolf().fit(reference.double().numpy()).mahalanobis(window.double().numpy())
    detector = find_detector("mahalanobis")(DIM)
    detector.fit(reference)
    np.testing.assert_allclose(detector.distance(window).numpy(), np.sqrt(oracle), rtol=1e-6)
    assert detector.check(window).score == pytest.approx(np.sqrt(oracle).mean())


def test_ks_is_scipys_smallest_p_value_times_the_number_of_features() -> None:
    reference, window = draw(150, seeded(0)), draw(40, seeded(1), shift=0.4)
    smallest = min(
        stats.ks_2samp(reference[:, k].double().numpy(), window[:, k].double().numpy()).pvalue
        for k in range(DIM)
    )
    detector = find_detector("ks")(DIM)
    detector.fit(reference)
    verdict = detector.check(window)
    assert verdict.score == pytest.approx(-math.log10(min(1.0, smallest * DIM)), rel=1e-6)
    assert verdict.threshold == pytest.approx(2.0)


def test_mmd_is_the_double_loop_over_the_kernel() -> None:
    reference, window = draw(20, seeded(0)), draw(6, seeded(1))
    detector = find_detector("mmd")(DIM)
    detector.fit(reference)
    both = torch.cat((reference, window))
    squared = [float(((a - b) ** 2).sum()) for a in both for b in both]
    width = float(torch.tensor(squared).median())

    def mean_kernel(left: Tensor, right: Tensor) -> float:
        values = [math.exp(-float(((a - b) ** 2).sum()) / width) for a in left for b in right]
        return sum(values) / len(values)

    expected = (
        mean_kernel(reference, reference)
        + mean_kernel(window, window)
        - 2 * mean_kernel(reference, window)
    )
    assert detector.check(window).score == pytest.approx(expected, rel=1e-3)


def test_mmd_asks_for_a_difference_that_is_large_and_not_only_certain() -> None:
    reference, window = draw(200, seeded(0)), draw(60, seeded(1), shift=0.8)
    plain = find_detector("mmd")(DIM)
    plain.fit(reference)
    certain = plain.check(window)
    assert certain.fired
    for least, fires in ((certain.score * 0.9, True), (certain.score * 1.1, False)):
        detector = find_detector("mmd")(DIM, min_discrepancy=least)
        detector.fit(reference)
        verdict = detector.check(window)
        assert verdict.score == certain.score
        assert verdict.threshold == pytest.approx(max(least, certain.threshold))
        assert verdict.fired is fires
    with pytest.raises(InputError, match=r"`min_discrepancy` must lie in \[0, 2\), got 2"):
        find_detector("mmd")(DIM, min_discrepancy=2)


def test_hdc_is_a_plain_loop_over_signs() -> None:
    reference, window = draw(20, seeded(0)).double(), draw(5, seeded(1)).double()
    detector = HyperdimensionalMemory(DIM, seed=3, dimensions=64)
    detector.fit(reference.float())
    directions = torch.randn(DIM + 1, 64, generator=seeded(3)).double().T.tolist()
    mean = [float(reference[:, k].mean()) for k in range(DIM)]
    squares = [sum((row[k] - mean[k]) ** 2 for k in range(DIM)) for row in reference.tolist()]
    spread = math.sqrt(sum(squares) / 20)

    def signs(row: list[float]) -> list[int]:
        point = [(row[k] - mean[k]) / spread for k in range(DIM)] + [1.0]
        return [
            -1 if sum(a * b for a, b in zip(each, point, strict=True)) < 0 else 1
            for each in directions
        ]

    memory = [sum(column) for column in zip(*map(signs, reference.tolist()), strict=True)]
    assert detector.memory.tolist() == memory
    length = math.sqrt(sum(value**2 for value in memory)) * 8
    scores = [
        1 - sum(a * b for a, b in zip(signs(row), memory, strict=True)) / length
        for row in window.tolist()
    ]
    torch.testing.assert_close(
        detector.sample_scores(window.float()), torch.tensor(scores, dtype=torch.float64)
    )
    assert detector.check(window.float()).score == pytest.approx(sum(scores) / 5)


def test_hdc_follows_the_angle_and_minds_no_common_scale() -> None:
    reference = draw(150, seeded(0))
    detector, scaled = (HyperdimensionalMemory(DIM, dimensions=8192) for _ in range(2))
    detector.fit(reference)
    scaled.fit(3 * reference)
    window = draw(40, seeded(1), shift=0.5)
    assert scaled.check(3 * window).score == pytest.approx(detector.check(window).score, abs=1e-3)
    # Signs of two inputs agree but for the angle between them over pi.
    away = detector.mean.float() + torch.eye(DIM) * float(detector.spread)
    bits = detector._signs(away.double(), detector._directions())
    share = (bits[0] != bits[1]).float().mean()
    assert share == pytest.approx(1 / 3, abs=0.02)  # 60 degrees between (1, 0, 1) and (0, 1, 1)


def test_hdc_of_a_reference_without_spread_stays_finite() -> None:
    detector = HyperdimensionalMemory(DIM)
    detector.fit(torch.full((20, DIM), 7.0))
    known, other = (detector.check(torch.full((8, DIM), value)) for value in (7.0, 8.0))
    assert math.isfinite(known.score)
    assert not known.fired
    assert other.fired


def test_levels_rest_on_samples_that_the_fit_did_not_see() -> None:
    # Few samples of many independent features: those that were fitted lie much closer.
    reference, fresh = (
        torch.randn(40, 24, generator=seeded(0)),
        torch.randn(500, 24, generator=seeded(1)),
    )
    descriptor = DescriptorZScore(24, dim=12, epochs=200, lr=0.05, batch_size=8)
    distances = Mahalanobis(24)
    for detector, of, kept in (
        (descriptor, descriptor.errors, descriptor.records),
        (distances, distances.distance, distances.distances),
    ):
        detector.fit(reference)
        known = kept[: int(detector.count)].mean()
        assert int(detector.count) == len(reference)
        assert known > 1.05 * of(reference).mean()
        assert 0.85 < known / of(fresh).mean() < 1.2
