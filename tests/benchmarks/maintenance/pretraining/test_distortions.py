import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from cl_adapters.benchmarks.maintenance.pretraining import distortions
from cl_adapters.benchmarks.maintenance.pretraining.distortions import distort, random_views


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int = 3, height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(count, 3, height, width, generator=generator(9))


def ramps(count: int) -> Tensor:
    """Images whose red tells the column of a pixel and whose green tells the row, times four."""
    row, column = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    image = torch.stack([4 * column, 4 * row, torch.zeros_like(row)]).to(torch.uint8)
    return image.expand(count, 3, 64, 64)


def linear_maps(views: Tensor) -> np.ndarray:
    """Finds by least squares which part of the image of ramps each view shows, (B, 2, 2).

    Coordinates run from -1 to 1 in image and view, so a map of determinant 1 shows as much as
    the image holds.
    """
    line = (np.arange(32) + 0.5) / 16 - 1
    down, across = np.meshgrid(line, line, indexing="ij")
    design = np.stack([across.ravel(), down.ravel(), np.ones(1024)], axis=1)
    maps = []
    for view in views.numpy():
        rows = []
        for channel in view[:2].reshape(2, -1):
            # Beyond the border the last pixel is repeated, which tells no place.
            inner = (channel > 0.01) & (channel < 0.97)
            places = (channel[inner] * 255 / 4 + 0.5) / 32 - 1
            rows.append(np.linalg.lstsq(design[inner], places, rcond=None)[0][:2])
        maps.append(np.stack(rows))
    return np.stack(maps)


def test_views_are_rotated_stretched_mirrored_parts_of_the_image() -> None:
    maps = linear_maps(random_views(ramps(600), generator()))
    area = np.abs(np.linalg.det(maps))
    is_crop = area < 1
    assert area.min() > 0.29
    assert area.max() < 1.71**2
    assert is_crop.mean() == pytest.approx(0.9, abs=0.05)  # four standard deviations
    assert np.median(area[is_crop]) == pytest.approx(0.65, abs=0.05)
    is_mirrored = np.linalg.det(maps) < 0
    assert is_mirrored.mean() == pytest.approx(0.5, abs=0.09)
    maps[is_mirrored, :, 0] *= -1
    # A rotation times unequal scales: its columns are orthogonal.
    wide, high = np.linalg.norm(maps, axis=1).T
    np.testing.assert_allclose((maps[:, :, 0] * maps[:, :, 1]).sum(axis=1), 0, atol=0.02)
    ratio = np.log(wide / high)
    assert np.abs(ratio).max() < 0.52
    assert np.abs(ratio).max() > 0.4
    angle = np.degrees(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert np.abs(angle).max() < 23
    assert np.abs(angle).max() > 15


def test_a_view_shows_every_image_of_the_batch_in_its_own_way() -> None:
    maps = linear_maps(random_views(ramps(20), generator())).reshape(20, 4)
    assert len(np.unique(maps.round(3), axis=0)) == 20


@pytest.mark.parametrize(("height", "width", "side"), [(64, 64, 32), (20, 20, 32), (50, 30, 8)])
def test_views_have_the_wanted_side_and_stay_in_range(height: int, width: int, side: int) -> None:
    pixels = (noise(5, height, width) * 255).to(torch.uint8)
    views = random_views(pixels, generator(), side=side)
    assert views.shape == (5, 3, side, side)
    assert views.dtype == torch.float32
    low, high = pixels.float().amin(dim=(2, 3)) / 255, pixels.float().amax(dim=(2, 3)) / 255
    assert (views >= low[..., None, None] - 1e-6).all()
    assert (views <= high[..., None, None] + 1e-6).all()


def test_a_plain_image_has_plain_views() -> None:
    pixels = torch.tensor([10, 100, 250], dtype=torch.uint8).view(1, 3, 1, 1).expand(50, 3, 64, 64)
    expected = (pixels[:, :, :32, :32].float() / 255).contiguous()
    torch.testing.assert_close(random_views(pixels, generator()), expected)


def test_inversion_is_the_photographic_negative() -> None:
    pixels = (noise() * 255).round()
    negative = 255 - pixels.to(torch.uint8)
    torch.testing.assert_close(distortions._invert(pixels / 255), negative.float() / 255)
    torch.testing.assert_close(distortions._invert(distortions._invert(noise())), noise())


def test_grey_equals_pillows() -> None:
    pixels = (noise() * 255).to(torch.uint8)
    found = distortions._grey(pixels.float() / 255)
    for image, grey in zip(pixels, found, strict=True):
        expected = np.array(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
        np.testing.assert_allclose(grey[0].numpy() * 255, expected, atol=1)


def test_blur_is_a_binomial_filter_that_repeats_the_border() -> None:
    weights = np.array([math.comb(4, index) for index in range(5)]) / 16
    expected = noise(2, 9, 13).numpy()
    for axis in (2, 3):
        expected = ndimage.convolve1d(expected, weights, axis=axis, mode="nearest")
    found = distortions._blur(noise(2, 9, 13))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_noise_has_the_stated_spread_and_no_bias() -> None:
    added = distortions._noise(noise(50), generator()) - noise(50)
    assert float(added.mean()) == pytest.approx(0, abs=0.001)
    assert float(added.std()) == pytest.approx(0.06, rel=0.02)


@pytest.mark.parametrize("side", [8, 16])
def test_coarse_images_keep_block_means_and_nothing_else(side: int) -> None:
    images = noise()
    block = 32 // side
    # The pixels of each block change places; only what is inside of blocks is lost by it.
    blocks = images.unfold(2, block, block).unfold(3, block, block)  # (B, 3, S, S, block, block)
    turned = blocks.flip(4, 5).permute(0, 1, 2, 4, 3, 5).reshape(images.shape)
    assert not torch.allclose(images, turned)
    found = distortions._coarse(images, side)
    torch.testing.assert_close(distortions._coarse(turned, side), found)
    assert found.shape == images.shape
    assert found.std() < images.std()
    torch.testing.assert_close(found.mean(dim=(2, 3)), images.mean(dim=(2, 3)), atol=0.01, rtol=0)
    plain = torch.full((1, 3, 32, 32), 0.3)
    torch.testing.assert_close(distortions._coarse(plain, side), plain)


def test_edges_are_dark_where_brightness_changes_and_white_elsewhere() -> None:
    image = torch.zeros(1, 3, 32, 32)
    image[..., 20:] = 0.5  # two halves side by side meet between columns 19 and 20
    for each, line in (
        (image, (..., slice(19, 21))),
        (image.mT, (..., slice(19, 21), slice(None))),
    ):
        found = distortions._edges(each)
        expected = torch.ones(1, 3, 32, 32)
        expected[line] = 0
        torch.testing.assert_close(found, expected, atol=0.01, rtol=0)
    plain = torch.full((1, 3, 32, 32), 0.7)
    torch.testing.assert_close(distortions._edges(plain), torch.ones(1, 3, 32, 32))


def test_a_threshold_leaves_black_and_white_around_the_mean() -> None:
    image = torch.full((1, 3, 32, 32), 0.2)
    image[..., 8:, :] = 0.8
    found = distortions._threshold(image)
    expected = (image > image.mean()).float()
    torch.testing.assert_close(found, expected, atol=0.06, rtol=0)


def test_recolouring_keeps_grey_images_without_gain_in_order() -> None:
    """Contrast and brightness are increasing maps of an image, so ranks of pixels stay."""
    ramp = torch.linspace(0.3, 0.6, 1024).view(1, 1, 32, 32).expand(40, 3, 32, 32)
    found = distortions._recolour(ramp.contiguous(), generator())
    steps = found.flatten(2).diff(dim=-1)
    assert (steps >= -1e-6).all()
    assert len(np.unique(found.mean(dim=(1, 2, 3)).numpy().round(4))) == 40
    assert found.std(dim=(2, 3)).max() > 1.3 * ramp.std(dim=(2, 3)).max()
    assert found.std(dim=(2, 3)).min() < 0.7 * ramp.std(dim=(2, 3)).min()


def test_recolouring_takes_all_colour_from_some_images() -> None:
    images = noise(400, 4, 4) * 0.2 + 0.4
    found = distortions._recolour(images, generator())
    # Without saturation the channels differ by their gain alone.
    shape = found - found.mean(dim=(2, 3), keepdim=True)
    shape = torch.nn.functional.normalize(shape.flatten(2), dim=-1)
    alike = (shape[:, 0] * shape[:, 1]).sum(dim=-1)
    is_grey = (alike > 0.999).float().mean()
    assert float(is_grey) == pytest.approx(0.15, abs=0.07)


def test_distorted_images_stay_in_range_and_differ_from_each_other() -> None:
    images = noise(1).expand(64, 3, 32, 32).contiguous()
    before = images.clone()
    found = distort(images, generator())
    assert found.shape == images.shape
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(images, before)
    assert len(torch.unique(found.flatten(1), dim=0)) == 64


def test_each_distortion_happens_to_some_images_and_not_to_others() -> None:
    """Of plain images, noise leaves speckles, edges a white page, and inversion makes it black."""
    plain = torch.full((2000, 3, 32, 32), 0.5)
    found = distort(plain, generator())
    is_speckled = found.flatten(2).std(dim=-1).amax(dim=1) > 0.005
    assert 0.2 < is_speckled.float().mean() < 0.4
    quiet = found[~is_speckled]
    is_white, is_black = (
        (quiet.flatten(1) - value).abs().amax(dim=1) < 0.001 for value in (1.0, 0.0)
    )
    assert 0.01 < is_white.float().mean() < 0.1
    assert 0 < is_black.float().mean() < is_white.float().mean()


@pytest.mark.parametrize("change", ["views", "distortions"])
def test_all_chance_comes_from_the_generator(change: str) -> None:
    pixels = (noise(16) * 255).to(torch.uint8)

    def run(seed: int) -> Tensor:
        if change == "views":
            return random_views(pixels, generator(seed))
        return distort(pixels.float() / 255, generator(seed))

    state = torch.get_rng_state()
    first = run(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert torch.equal(run(0), first)
    assert not torch.equal(run(1), first)
