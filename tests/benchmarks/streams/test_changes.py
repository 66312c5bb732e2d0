"""Each change of pixels against a second way to compute it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from cl_adapters.benchmarks.data.sources import digits_source
from cl_adapters.benchmarks.streams.changes import KINDS, DomainMix, KindOfChange
from cl_adapters.errors import InputError


def smooth_image(height: int = 40, width: int = 40) -> np.ndarray:
    """Waves of a different length in each channel, without sharp edges."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / 7 + 1) + np.cos(columns / (5 + channel)) for channel in range(3)]
    return np.rint(127 + 60 * np.stack(waves, axis=2)).astype(np.uint8)


def rough_image(height: int = 24, width: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def apply(kind: str, image: np.ndarray, severity: float, seed: int = 0) -> np.ndarray:
    before = image.copy()
    result = KindOfChange(kind, severity, seed)(image)
    np.testing.assert_array_equal(image, before)
    assert (result.dtype, result.shape) == (np.uint8, image.shape)
    return result.astype(np.float64)


def test_rotation_is_a_quarter_turn_to_the_left_at_severity_one() -> None:
    image = rough_image(24, 24)
    np.testing.assert_array_equal(apply("rotation", image, 1), np.rot90(image))


def test_a_smaller_rotation_equals_scipys() -> None:
    image = smooth_image()
    expected = ndimage.rotate(image.astype(float), 30, reshape=False, order=3)
    rows, columns = np.mgrid[:40, :40] - 19.5
    inside = rows**2 + columns**2 < 17**2
    rotated = apply("rotation", image, 1 / 3)
    assert np.abs(rotated - expected)[inside].max() < 4
    assert (rotated[0, 0] == 0).all(), "corners are black"


@pytest.mark.parametrize("severity", [0.2, 0.5])
def test_blur_equals_scipys_gaussian(severity: float) -> None:
    image = rough_image(32, 48)
    expected = ndimage.gaussian_filter(
        image.astype(float), (severity * 4, severity * 4, 0), mode="nearest"
    )
    # Pillow takes three box blurs for a Gaussian.
    inside = (slice(6, -6), slice(6, -6))
    assert np.abs(apply("blur", image, severity) - expected)[inside].mean() < 4
    assert np.abs(image - expected)[inside].mean() > 40


def test_noise_has_the_stated_spread_and_no_pattern() -> None:
    grey = np.full((200, 200, 3), 128, dtype=np.uint8)
    noise = apply("noise", grey, 0.2) - 128
    assert noise.mean() == pytest.approx(0, abs=0.2)
    assert noise.std() == pytest.approx(0.3 * 255 * 0.2, rel=0.02)
    assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02
    assert {apply("noise", grey, 1).min(), apply("noise", grey, 1).max()} == {0, 255}


def test_noise_follows_seed_and_image_only() -> None:
    one, two = rough_image(seed=1), rough_image(seed=2)
    first = apply("noise", one, 0.5, seed=3)
    apply("noise", two, 0.5, seed=3)
    np.testing.assert_array_equal(first, apply("noise", one.copy(), 0.5, seed=3))
    assert (first != apply("noise", one, 0.5, seed=4)).mean() > 0.8
    difference = apply("noise", two, 0.1, seed=3) - two
    assert not np.allclose(difference, apply("noise", one, 0.1, seed=3) - one)


def test_inversion_turns_the_bright_values_first() -> None:
    image = rough_image()
    np.testing.assert_array_equal(apply("inversion", image, 1), 255 - image)
    half = np.where(image >= 128, 255 - image, image)
    np.testing.assert_array_equal(apply("inversion", image, 0.5), half)


def test_contrast_shrinks_towards_the_mean_grey() -> None:
    image = rough_image()
    mean = (image @ np.array([0.299, 0.587, 0.114])).mean()
    for severity in (0.3, 1.0):
        expected = mean + (image - mean) * (1 - 0.85 * severity)
        assert np.abs(apply("contrast", image, severity) - expected).max() <= 1.1


def test_colour_is_an_orange_tint_of_grey_images_too() -> None:
    white = np.full((2, 2, 3), 250, dtype=np.uint8)
    assert apply("colour", white, 1)[0, 0].tolist() == [250, 150, 50]
    assert apply("colour", white, 0.5)[1, 1].tolist() == [250, 200, 150]


@given(st.sampled_from(sorted(KINDS)), st.integers(1, 9), st.integers(1, 9), st.floats(0, 1))
def test_every_change_takes_every_size(kind: str, height: int, width: int, severity: float) -> None:
    image = rough_image(height, width)
    changed = apply(kind, image, severity)
    if severity == 0:
        np.testing.assert_array_equal(changed, image)
    np.testing.assert_array_equal(changed, apply(kind, image, severity))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_changes_digits(kind: str) -> None:
    images = digits_source().test
    changed = [
        np.abs(KindOfChange(kind)(images.read(index)).astype(int) - images.read(index)).mean()
        for index in range(30)
    ]
    assert min(changed) > 8


def test_a_mix_has_the_stated_share_and_a_larger_share_keeps_a_smaller_ones() -> None:
    image = np.arange(3, dtype=np.uint8).reshape(1, 1, 3)
    images = [image + np.uint8(shift) for shift in range(1, 250)]
    old, new = KindOfChange("colour"), KindOfChange("inversion")
    inverted: list[set[int]] = []
    for share in (0.0, 0.3, 0.6, 1.0):
        mix = DomainMix(old, new, share, seed=1)
        inverted.append(
            {place for place, each in enumerate(images) if (mix(each) == 255 - each).all()}
        )
        others = set(range(len(images))) - inverted[-1]
        assert all((mix(images[place]) == old(images[place])).all() for place in others)
    assert inverted[0] < inverted[1] < inverted[2] < inverted[3]
    assert [len(each) / 249 for each in inverted] == pytest.approx([0, 0.3, 0.6, 1], abs=0.08)
    assert (DomainMix(None, new, 0.0)(image) == image).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rotate",), "unknown kind of shift 'rotate'; did you mean 'rotation'"),
        (("blur", 1.5), r"severity must lie in \[0, 1\], got 1.5"),
        (("blur", -0.1), r"severity must lie in \[0, 1\], got -0.1"),
        (("blur", float("nan")), r"severity must lie in \[0, 1\], got nan"),
    ],
)
def test_bad_changes_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        KindOfChange(*arguments)
