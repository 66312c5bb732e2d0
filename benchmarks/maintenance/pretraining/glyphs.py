"""Procedural drawings with class labels: characters of random strokes, and emblems.

No font, no symbol and no picture of anybody goes into them. A glyph class is up to four random
cubic Bezier strokes; an emblem class is a bordered polygon or disc in two colours with a glyph in
it. Every drawing of a class moves the control points and differs in slant, size, line width and
colour. They are made for pretraining, so that characters and signs are not foreign to a network
that otherwise sees photographs.
"""

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

__all__ = ["EmblemBank", "GlyphBank", "draw_emblems", "draw_glyphs"]

STROKES: Final = 4
POINTS: Final = 20
SIDE: Final = 32
SIDES: Final = (0, 0, 3, 4, 8)  # 0 is a disc
COLOURS: Final = torch.tensor(
    [
        [0.80, 0.08, 0.10],
        [0.05, 0.20, 0.65],
        [0.95, 0.80, 0.10],
        [0.95, 0.95, 0.95],
        [0.06, 0.06, 0.06],
        [0.10, 0.50, 0.20],
        [0.90, 0.45, 0.05],
        [0.50, 0.50, 0.52],
    ]
)


@dataclass(frozen=True, eq=False)
class GlyphBank:
    """The shapes of glyph classes.

    Attributes:
        control: Control points in [-1.1, 1.1], (C, 4, 4, 2): class, stroke, point, x and y.
        is_drawn: Which of the strokes a class has, (C, 4).
    """

    control: Tensor
    is_drawn: Tensor

    @classmethod
    def make(cls, num_classes: int, *, seed: int) -> "GlyphBank":
        """Returns random glyph classes.

        Example:
            >>> GlyphBank.make(3, seed=0).control.shape
            torch.Size([3, 4, 4, 2])
        """
        source = torch.Generator().manual_seed(seed)
        shape = (num_classes, STROKES)
        ends = torch.rand(*shape, 2, 2, generator=source) * 1.8 - 0.9
        for stroke in range(1, STROKES):
            is_joined = torch.rand(num_classes, 1, generator=source) < 0.55
            before = ends[:, stroke - 1, 1]
            ends[:, stroke, 0] = torch.where(is_joined, before, ends[:, stroke, 0])
        is_loop = torch.rand(*shape, 1, generator=source) < 0.12
        ends[:, :, 1] = torch.where(is_loop, ends[:, :, 0] + 0.05, ends[:, :, 1])
        bend = torch.randn(*shape, 2, 2, generator=source) * 0.7
        bend *= torch.rand(*shape, 1, 1, generator=source) < 0.65
        bend[is_loop[..., 0]] *= 1.6
        inner = torch.stack(
            [torch.lerp(ends[:, :, 0], ends[:, :, 1], s) for s in (1 / 3, 2 / 3)], 2
        )
        control = torch.cat([ends[:, :, :1], inner + bend, ends[:, :, 1:]], dim=2)  # (C, S, 4, 2)
        count = torch.randint(2, STROKES + 1, (num_classes, 1), generator=source)
        return cls(control.clamp(-1.1, 1.1), torch.arange(STROKES) < count)


@dataclass(frozen=True, eq=False)
class EmblemBank:
    """The looks of emblem classes: a glyph each, a polygon, and colours.

    Attributes:
        glyphs: One glyph class for each emblem class.
        sides: Number of sides, 0 for a disc, (C,).
        turn: Angle of the polygon in radians, (C,).
        border: Width of the border as a share of the radius, (C,).
        colours: Of border, field and glyph, (C, 3, 3).
    """

    glyphs: GlyphBank
    sides: Tensor
    turn: Tensor
    border: Tensor
    colours: Tensor

    @classmethod
    def make(cls, num_classes: int, *, seed: int) -> "EmblemBank":
        """Returns random emblem classes."""
        source = torch.Generator().manual_seed(seed)
        kind = torch.randint(len(SIDES), (num_classes,), generator=source)
        turn = torch.randint(4, (num_classes,), generator=source) * (math.pi / 4)
        border = torch.rand(num_classes, generator=source) * 0.3
        # Few colourings, so that most classes differ from others by their glyph alone.
        palettes = torch.stack([torch.randperm(8, generator=source)[:3] for _ in range(16)])
        chosen = palettes[torch.randint(16, (num_classes,), generator=source)]
        glyphs = GlyphBank.make(num_classes, seed=seed + 1)
        return cls(glyphs, torch.tensor(SIDES)[kind], turn, border, COLOURS[chosen])


def _uniform(low: float, high: float, size: int, source: torch.Generator) -> Tensor:
    return torch.rand(size, generator=source) * (high - low) + low


def _placements(size: int, turn: float, source: torch.Generator) -> Tensor:
    """Draws linear maps (B, 2, 2): rotation up to `turn` radians, unequal scales, slant."""
    angle = _uniform(-turn, turn, size, source)
    slant = _uniform(-0.25, 0.25, size, source)
    wide, high = _uniform(0.8, 1.1, size, source), _uniform(0.8, 1.1, size, source)
    cos, sin = angle.cos(), angle.sin()
    rows = [wide * cos, wide * (slant * cos - sin), high * sin, high * (slant * sin + cos)]
    return torch.stack(rows, dim=1).view(size, 2, 2)


def _ink(bank: GlyphBank, classes: Tensor, size: Tensor, source: torch.Generator) -> Tensor:
    """Renders strokes as a soft coverage in [0, 1], (B, 32, 32), at a share `size` of the image."""
    batch = len(classes)
    control = bank.control[classes]
    control = control + torch.randn(control.shape, generator=source) * 0.06
    time = torch.linspace(0, 1, POINTS)[:, None]
    basis = torch.cat(
        [(1 - time) ** 3, 3 * time * (1 - time) ** 2, 3 * time**2 * (1 - time), time**3], dim=1
    )
    points = torch.einsum("tk,bskd->bstd", basis, control)  # (B, S, T, 2)
    points = torch.einsum("bstd,bed->bste", points, _placements(batch, 0.3, source))
    shift = torch.randn(batch, 1, 1, 2, generator=source) * 0.07
    points = points * size[:, None, None, None] + shift
    steps = torch.diff(points, dim=2, append=points[:, :, -1:]).norm(dim=-1)
    width = _uniform(0.035, 0.1, batch, source) * (0.4 + 0.6 * size)
    weights = steps * bank.is_drawn[classes][:, :, None] / (width[:, None, None] * 2.5066)
    grid = torch.linspace(-1, 1, SIDE)
    gaps = points.reshape(batch, -1, 2)[..., None] - grid  # (B, S * T, 2, 32)
    bells = torch.exp(-(gaps**2) / (2 * width[:, None, None, None] ** 2))
    # A Gaussian in the plane is a product of two, so all points are summed by one matrix product.
    cover = torch.bmm(
        (bells[:, :, 1] * weights.reshape(batch, -1, 1)).transpose(1, 2), bells[:, :, 0]
    )
    return ((cover - 0.3) * 2.5).clamp(0, 1)


def draw_glyphs(bank: GlyphBank, classes: Tensor, source: torch.Generator) -> Tensor:
    """Draws glyphs in two plain colours, half of them black and white.

    Args:
        bank: The classes.
        classes: Class of each drawing. Shape: (B,).
        source: Randomness.

    Returns:
        Shape: (B, 3, 32, 32), in [0, 1].
    """
    batch = len(classes)
    ink = _ink(bank, classes, _uniform(0.55, 0.95, batch, source), source)[:, None]
    is_plain = torch.rand(batch, 1, 1, 1, generator=source) < 0.5
    low = torch.rand(batch, 3, 1, 1, generator=source) * 0.4 * ~is_plain
    high = 1 - torch.rand(batch, 3, 1, 1, generator=source) * 0.4 * ~is_plain
    is_dark = torch.rand(batch, 1, 1, 1, generator=source) < 0.5
    drawn, ground = torch.where(is_dark, low, high), torch.where(is_dark, high, low)
    return torch.lerp(ground.expand(-1, -1, SIDE, SIDE), drawn.expand(-1, -1, SIDE, SIDE), ink)


def draw_emblems(
    bank: EmblemBank, classes: Tensor, ground: Tensor, source: torch.Generator
) -> Tensor:
    """Draws emblems in front of other images.

    Args:
        bank: The classes.
        classes: Class of each drawing. Shape: (B,).
        ground: What is behind. Shape: (B, 3, 32, 32), in [0, 1].
        source: Randomness.

    Returns:
        Shape: (B, 3, 32, 32), in [0, 1].
    """
    batch = len(classes)
    radius = _uniform(0.5, 0.98, batch, source)
    soft = _uniform(0.02, 0.07, batch, source)[:, None, None]
    depth = _depth(bank, classes, radius, source)  # (B, 32, 32), 0 at the rim, in radii
    outside = torch.sigmoid(-depth / soft)[:, None]
    inside = torch.sigmoid((depth - bank.border[classes][:, None, None]) / soft)[:, None]
    ink = _ink(bank.glyphs, classes, radius * 0.65, source)[:, None] * inside
    tint = bank.colours[classes] + torch.randn(batch, 3, 3, generator=source) * 0.06
    rim, field, glyph = tint.clamp(0, 1)[..., None, None].unbind(1)
    image = torch.lerp(torch.lerp(rim, field, inside), glyph.expand_as(ground), ink)
    image = image * (0.25 + 0.85 * torch.rand(batch, 1, 1, 1, generator=source))
    return torch.lerp(image, ground, outside).clamp(0, 1)


def _depth(bank: EmblemBank, classes: Tensor, radius: Tensor, source: torch.Generator) -> Tensor:
    """Returns how far each pixel lies inside the outline, in radii, (B, 32, 32)."""
    batch = len(classes)
    line = torch.linspace(-1, 1, SIDE)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)  # (32, 32, 2)
    shift = torch.randn(batch, 1, 1, 2, generator=source) * 0.07
    places = (grid - shift) / radius[:, None, None, None]
    places = torch.einsum("bhwd,bed->bhwe", places, _placements(batch, 0.15, source))
    sides = bank.sides[classes].clamp(min=3)[:, None]
    around = torch.arange(8)[None] % sides  # repeats a polygon's sides up to eight
    angles = around * (2 * math.pi / sides) + bank.turn[classes][:, None]
    normals = torch.stack([angles.cos(), angles.sin()], dim=-1)  # (B, 8, 2)
    polygon = torch.einsum("bhwd,bkd->bhwk", places, normals).amax(dim=-1)
    inner = torch.cos(math.pi / sides)[..., None]
    is_disc = (bank.sides[classes] == 0)[:, None, None]
    return torch.where(is_disc, 1 - places.norm(dim=-1), inner - polygon)
