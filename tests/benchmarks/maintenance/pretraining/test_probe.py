import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize
from torch import Tensor, nn

from cl_adapters.benchmarks.data.images import LabelledImages
from cl_adapters.benchmarks.data.sources import digits_source
from cl_adapters.benchmarks.maintenance.pretraining import probe
from cl_adapters.benchmarks.maintenance.pretraining.probe import (
    extract_features,
    nearest_class_mean,
    ridge_accuracy,
)
from cl_adapters.errors import InputError

STRENGTHS = (1, 10, 100, 1_000, 10_000, 100_000)


def nearest_mean_by_sklearn(
    known: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray
) -> float:
    """The class means by a loop, the nearest of them by scikit-learn's search with cosines."""
    present = np.unique(labels)
    means = [np.mean([normalize(f[None])[0] for f in known[labels == c]], axis=0) for c in present]
    nearest = KNeighborsClassifier(1, metric="cosine").fit(np.stack(means), present)
    return 100 * float(nearest.score(test, truth))


def ridge_by_sklearn(
    known: Tensor, labels: Tensor, test: Tensor, truth: Tensor, strength: float
) -> float:
    mean, spread = known.numpy().mean(axis=0), known.numpy().std(axis=0, ddof=1)
    model = RidgeClassifier(alpha=strength).fit((known.numpy() - mean) / spread, labels.numpy())
    return 100 * float(model.score((test.numpy() - mean) / spread, truth.numpy()))


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(2, 6), st.booleans())
@settings(max_examples=40, deadline=None)
def test_nearest_class_mean_equals_scikit_learns(
    seed: int, num_classes: int, num_features: int, is_double: bool
) -> None:
    source = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(num_classes), source.integers(num_classes, size=12)])
    truth = source.integers(num_classes, size=20)
    centres = source.normal(size=(num_classes, num_features))
    # Lengths differ by orders of magnitude, and only directions may matter.
    known, test = (
        (centres[each] + source.normal(size=(len(each), num_features)))
        * 10 ** source.uniform(-2, 2, (len(each), 1))
        for each in (labels, truth)
    )
    kind = torch.float64 if is_double else torch.float32
    found = nearest_class_mean(
        torch.tensor(known, dtype=kind),
        torch.tensor(labels),
        torch.tensor(test, dtype=kind),
        torch.tensor(truth),
    )
    assert found == pytest.approx(nearest_mean_by_sklearn(known, labels, test, truth))


def test_a_class_without_known_features_is_never_the_answer() -> None:
    known, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 2])
    away_from_all = torch.tensor([[-1.0, -0.5], [-0.5, -1.0]])
    assert nearest_class_mean(known, labels, away_from_all, torch.tensor([2, 0])) == 100
    assert nearest_class_mean(known, labels, away_from_all, torch.tensor([1, 1])) == 0


def test_classes_that_only_the_test_has_count_as_wrong() -> None:
    known, labels = torch.eye(2), torch.tensor([0, 1])
    assert nearest_class_mean(known, labels, torch.eye(2), torch.tensor([0, 7])) == 50
    many, repeated = known.repeat(10, 1), labels.repeat(10)
    assert ridge_accuracy(many, repeated, torch.eye(2), torch.tensor([0, 7])) == 50


Problem = tuple[Tensor, Tensor, Tensor, Tensor]


def needs_a_weak_ridge() -> Problem:
    """The class is the small difference of two features; what they share tells little of it."""
    source = torch.Generator().manual_seed(1)
    labels = torch.arange(600) % 2
    common = torch.randn(600, 1, generator=source) + 0.4 * (labels[:, None] - 0.5)
    features = common.repeat(1, 2)
    features[:, 0] += 0.2 * (labels - 0.5)
    features = features.double()
    return features[:400], labels[:400], features[400:], labels[400:]


def needs_a_strong_ridge() -> Problem:
    """Every feature tells a little, and there are more features than images to fit them."""
    source = torch.Generator().manual_seed(2)
    labels = torch.arange(700) % 2
    features = torch.randn(700, 250, generator=source) + 0.2 * (labels[:, None] - 0.5)
    features = features.double()
    return features[:300], labels[:300], features[300:], labels[300:]


@pytest.mark.parametrize(
    ("problem", "good", "bad"),
    [(needs_a_weak_ridge(), (1, 10), 100_000), (needs_a_strong_ridge(), STRENGTHS[3:], 1)],
    ids=["weak", "strong"],
)
def test_ridge_equals_scikit_learns_at_a_strength_that_suits(
    problem: Problem, good: tuple[int, ...], bad: int
) -> None:
    found = ridge_accuracy(*problem)
    assert any(found == pytest.approx(ridge_by_sklearn(*problem, each)) for each in good)
    assert found > ridge_by_sklearn(*problem, bad) + 10


def test_ridge_with_many_classes_equals_scikit_learns() -> None:
    source = torch.Generator().manual_seed(3)
    labels, truth = (torch.arange(size) % 7 for size in (210, 140))
    centres = torch.randn(7, 12, generator=source)
    known, test = (
        (centres[each] + 1.5 * torch.randn(len(each), 12, generator=source)).double()
        for each in (labels, truth)
    )
    found = ridge_accuracy(known, labels, test, truth)
    by_strength = [ridge_by_sklearn(known, labels, test, truth, each) for each in STRENGTHS]
    assert any(found == pytest.approx(each) for each in by_strength)
    assert 30 < min(by_strength) <= max(by_strength) < 100


def test_ridge_does_not_depend_on_units_or_constant_features() -> None:
    known, labels, test, truth = needs_a_weak_ridge()
    expected = ridge_accuracy(known, labels, test, truth)
    scale, shift = torch.tensor([100.0, 0.1]), torch.tensor([5.0, -3.0])
    assert ridge_accuracy(known * scale + shift, labels, test * scale + shift, truth) == expected
    padded = [torch.cat([each, torch.full((len(each), 1), 0.3)], dim=1) for each in (known, test)]
    assert ridge_accuracy(padded[0], labels, padded[1], truth) == expected


def test_test_features_take_no_part_in_the_choice_of_the_strength() -> None:
    known, labels, test, truth = needs_a_strong_ridge()
    parts = [ridge_accuracy(known, labels, test[i::4], truth[i::4]) for i in range(4)]
    assert np.mean(parts) == pytest.approx(ridge_accuracy(known, labels, test, truth))


@pytest.mark.parametrize("measure", [nearest_class_mean, ridge_accuracy])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("is_test", [False, True])
def test_features_that_are_not_finite_are_refused(
    measure: Callable[..., float], value: float, is_test: bool
) -> None:
    good = torch.eye(2).repeat(10, 1)
    broken = good.clone()
    broken[3, 1] = value
    labels = torch.arange(20) % 2
    known, test = (good, broken) if is_test else (broken, good)
    with pytest.raises(InputError, match=f"features must be finite, got {value} in row 3"):
        measure(known, labels, test, labels)


def test_features_of_batches_follow_each_other_in_fp32_without_gradients() -> None:
    last = nn.Linear(12, 5)
    network, images = nn.Sequential(nn.Flatten(), last), torch.randn(7, 3, 2, 2)
    expected = images.flatten(1) @ last.weight.T + last.bias
    found = extract_features(network, torch.split(images, 3))
    torch.testing.assert_close(found, expected.detach())
    assert not found.requires_grad
    narrow = extract_features(network.bfloat16(), torch.split(images.bfloat16(), 3))
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, expected.detach(), atol=0.05, rtol=0.05)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["probe", "--threads", "1", *arguments])
    probe._main()


def small_pixels(images: LabelledImages, side: int) -> np.ndarray:
    pictures = (Image.fromarray(images.read(index)) for index in range(len(images)))
    small = [picture.resize((side, side), Image.Resampling.BICUBIC) for picture in pictures]
    return np.stack([np.array(each).transpose(2, 0, 1).ravel() / 127.5 - 1 for each in small])


def test_the_command_appends_a_line_for_each_data_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    out.write_text('{"earlier": 1}\n')
    command(monkeypatch, "digits", "--network", "pixels", "--side", "4", "--out", str(out))
    earlier, line = (json.loads(each) for each in out.read_text("utf-8").splitlines())
    assert earlier == {"earlier": 1}
    source = digits_source()
    known, test = (small_pixels(images, 4) for images in (source.train, source.test))
    labels, truth = source.train.targets, source.test.targets
    assert (line["data"], line["network"], line["side"]) == ("digits", "pixels", 4)
    assert (line["train"], line["test"]) == (len(known), len(test))
    assert line["nearest_class_mean"] == pytest.approx(
        nearest_mean_by_sklearn(known, labels, test, truth), abs=0.01
    )
    assert line["images_per_second"] > 0
    # Digits of 4 x 4 pixels are enough for a linear classifier to be far above one in ten.
    assert 70 < line["ridge"] < 100


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["digits", "--network", "pixels", "--threads", "0"], "`threads` must be at least 1"),
        (["digits", "--network", "pixels", "--side", "0"], "image size must be at least 1 pixel"),
        (["digits", "--network", "vit_pico"], "unknown backbone 'vit_pico'"),
        (["digits", "--weights", "nowhere.pt"], "got 'nowhere.pt'"),
        (["nowhere.parquet", "--network", "pixels"], "nowhere.parquet"),
    ],
)
def test_bad_arguments_end_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    with pytest.raises(SystemExit) as caught:
        command(monkeypatch, *arguments)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
