import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from cl_adapters.benchmarks.maintenance.pretraining.glyphs import (
    COLOURS,
    EmblemBank,
    GlyphBank,
    draw_emblems,
    draw_glyphs,
)

# Area / sqrt(det(covariance)) of a shape, by hand; no linear map changes it. Of a regular polygon
# with n sides and radius 1: area n sin(2 pi / n) / 2, variance (2 + cos(2 pi / n)) / 12 each way.
ROUNDNESS = {
    sides: 6 * sides * math.sin(2 * math.pi / sides) / (2 + math.cos(2 * math.pi / sides))
    for sides in (3, 4, 8)
} | {0: 4 * math.pi}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ink_of(images: Tensor) -> Tensor:
    """How far each pixel is from the ground, which is what the four corners show mostly."""
    corners = images[..., [0, 0, -1, -1], [0, -1, 0, -1]].median(dim=-1).values
    return (images - corners[..., None, None]).abs().amax(dim=1)


def straight(*, is_upright: bool, is_drawn: bool = True) -> GlyphBank:
    """One class, of which each of the four strokes is the same straight line through the middle."""
    line = torch.linspace(-0.9, 0.9, 4)
    ends = [torch.zeros(4), line] if is_upright else [line, torch.zeros(4)]
    control = torch.stack(ends, dim=-1).expand(1, 4, 4, 2)
    return GlyphBank(control, torch.tensor([[is_drawn, False, False, False]]))


def test_glyph_classes_have_two_to_four_strokes_within_the_canvas() -> None:
    bank = GlyphBank.make(300, seed=0)
    assert bank.control.shape == (300, 4, 4, 2)
    assert bank.is_drawn.shape == (300, 4)
    assert bank.control.abs().max() <= 1.1
    assert set(bank.is_drawn.sum(dim=1).tolist()) == {2, 3, 4}


def test_emblem_classes_have_known_outlines_and_three_different_colours() -> None:
    bank = EmblemBank.make(300, seed=0)
    assert bank.glyphs.control.shape == (300, 4, 4, 2)
    assert set(bank.sides.tolist()) == {0, 3, 4, 8}
    assert bank.border.min() >= 0
    assert bank.border.max() <= 0.3
    assert bank.colours.shape == (300, 3, 3)
    for colours in bank.colours:
        known = (colours[:, None] == COLOURS).all(dim=-1)  # (3, 8)
        assert known.any(dim=1).all()
        assert len(torch.unique(colours, dim=0)) == 3


@pytest.mark.parametrize("kind", [GlyphBank, EmblemBank])
def test_classes_depend_on_the_seed_alone(kind: type[GlyphBank] | type[EmblemBank]) -> None:
    def shapes(seed: int) -> Tensor:
        bank = kind.make(20, seed=seed)
        return bank.control if isinstance(bank, GlyphBank) else bank.glyphs.control

    state = torch.get_rng_state()
    first = shapes(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert torch.equal(shapes(0), first)
    assert not torch.equal(shapes(1), first)
    assert len(torch.unique(first.flatten(1), dim=0)) == 20


@pytest.mark.parametrize("kind", ["glyphs", "emblems"])
def test_all_chance_of_a_drawing_comes_from_the_generator(kind: str) -> None:
    classes = torch.arange(10)
    ground = torch.rand(10, 3, 32, 32, generator=generator(4))

    def draw(seed: int) -> Tensor:
        if kind == "glyphs":
            return draw_glyphs(GlyphBank.make(10, seed=1), classes, generator(seed))
        return draw_emblems(EmblemBank.make(10, seed=1), classes, ground, generator(seed))

    state = torch.get_rng_state()
    first = draw(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert torch.equal(draw(0), first)
    assert not torch.equal(draw(1), first)
    assert first.shape == (10, 3, 32, 32)
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert first.max() <= 1


def test_each_glyph_is_drawn_in_two_colours() -> None:
    images = draw_glyphs(GlyphBank.make(50, seed=1), torch.arange(50), generator())
    for image in images.flatten(2).mT.numpy():  # (1024, 3)
        # Every pixel lies on the line between two colours.
        singular = np.linalg.svd(image - image.mean(axis=0), compute_uv=False)
        assert singular[1] < 1e-3
        assert singular[0] > 1


def test_half_of_the_glyphs_are_black_and_white_and_half_are_dark_on_light() -> None:
    bank = straight(is_upright=True)
    images = draw_glyphs(bank, torch.zeros(600, dtype=torch.int64), generator())
    corner, centre = images[:, :, 0, 0], images[:, :, 14:18, 14:18].mean(dim=(1, 2, 3))
    is_grey = (images - images[:, :1]).abs().amax(dim=(1, 2, 3)) == 0
    assert float(is_grey.float().mean()) == pytest.approx(0.5, abs=0.09)
    assert set(corner[is_grey].flatten().tolist()) == {0, 1}
    is_light = corner.mean(dim=1) > centre
    assert float(is_light.float().mean()) == pytest.approx(0.5, abs=0.09)


@pytest.mark.parametrize("is_upright", [True, False])
def test_strokes_are_where_their_control_points_are(is_upright: bool) -> None:
    classes = torch.zeros(200, dtype=torch.int64)
    ink = ink_of(draw_glyphs(straight(is_upright=is_upright), classes, generator())).mean(dim=0)
    line = torch.arange(32.0) - 15.5
    rows, columns = (ink.sum(dim=axis) / ink.sum() for axis in (1, 0))
    assert abs(float(rows @ line)) < 1
    assert abs(float(columns @ line)) < 1
    along, across = (rows, columns) if is_upright else (columns, rows)
    # The line is 0.55 to 0.95 x 1.8 of half the image long: even, with variance length ** 2 / 12.
    assert math.sqrt(12 * float(along @ line**2)) == pytest.approx(0.75 * 1.8 * 16, rel=0.2)
    assert float(across @ line**2) < 0.3 * float(along @ line**2)


def test_strokes_that_a_class_does_not_have_leave_no_ink() -> None:
    bank = straight(is_upright=True, is_drawn=False)
    images = draw_glyphs(bank, torch.zeros(20, dtype=torch.int64), generator())
    assert torch.equal(images, images[..., :1, :1].expand_as(images))


def test_drawings_of_a_class_are_alike_but_never_the_same() -> None:
    bank = GlyphBank.make(5, seed=3)
    classes = torch.arange(5).repeat(60)
    ink = ink_of(draw_glyphs(bank, classes, generator())).flatten(1).numpy()
    ink /= np.linalg.norm(ink, axis=1, keepdims=True)
    assert len(np.unique(ink.round(4), axis=0)) == 300
    nearest = KNeighborsClassifier(5).fit(ink[:150], classes[:150])
    assert nearest.score(ink[150:], classes[150:]) > 0.6


def masks(bank: EmblemBank, emblem: int, count: int) -> Tensor:
    """How much of each pixel an emblem hides: what a black and a white ground do not change."""
    classes = torch.full((count,), emblem)
    black, white = (
        draw_emblems(bank, classes, torch.full((count, 3, 32, 32), value), generator(7))
        for value in (0.0, 1.0)
    )
    return 1 - (white - black).amin(dim=1)


@pytest.mark.parametrize("sides", [0, 3, 4, 8])
def test_emblems_have_the_outline_of_their_class(sides: int) -> None:
    bank = EmblemBank.make(60, seed=0)
    emblem = int((bank.sides == sides).nonzero()[0])
    found = []
    for mask in masks(bank, emblem, 300).numpy():
        rim = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        if rim.max() > 0.02:
            continue  # cut off by the image
        rows, columns = np.nonzero(mask > 0.5)
        places = np.stack([rows, columns]).astype(float)
        # Pixels are squares, of variance 1 / 12.
        spread = np.cov(places, bias=True) + np.eye(2) / 12
        found.append(len(rows) / math.sqrt(np.linalg.det(spread)))
    assert len(found) > 20
    assert np.mean(found) == pytest.approx(ROUNDNESS[sides], abs=0.15)


def test_emblems_hide_the_ground_in_the_middle_and_show_it_in_the_corners() -> None:
    bank = EmblemBank.make(40, seed=0)
    for emblem in (bank.sides == 0).nonzero()[:3, 0].tolist():
        found = masks(bank, emblem, 50)
        assert found[:, 14:18, 14:18].min() > 0.9
        assert found[:, [0, 0, -1, -1], [0, -1, 0, -1]].median() < 0.05


def test_emblems_show_the_three_colours_of_their_class() -> None:
    control = straight(is_upright=True)
    colours = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    bank = EmblemBank(
        control, torch.tensor([0]), torch.tensor([0.0]), torch.tensor([0.25]), colours
    )
    count = 200
    ground = torch.zeros(count, 3, 32, 32)
    mean = draw_emblems(bank, torch.zeros(count, dtype=torch.int64), ground, generator()).mean(0)
    rim, field, glyph = mean
    line = torch.arange(32) - 15.5
    distance = (line**2 + line[:, None] ** 2).sqrt()
    # The glyph is an upright line in the middle, the field around it, the border around both.
    assert glyph[:, 14:18].mean() > 3 * glyph[:, :12].mean()
    centres = [float((each * distance).sum() / each.sum()) for each in (glyph, field, rim)]
    assert centres == sorted(centres)
    assert centres[2] > centres[1] + 2
