"""Changes of pixels that turn one domain into another.

With severity s in [0, 1], d the image's short side in pixels, and s = 0 leaving it as it is:

    rotation    by 90 s degrees to the left about the centre, bicubic; corners become black
    blur        Gaussian, of radius s d / 8
    noise       Gaussian, of standard deviation 0.3 s of the full scale, added to each value
    inversion   of the values from 256 (1 - s) on (Pillow's solarisation): of all of them at s = 1
    contrast    distance to the image's mean grey multiplied by 1 - 0.85 s
    colour      an orange tint: green multiplied by 1 - 0.4 s, blue by 1 - 0.8 s

Chance comes from a seed and from the image's own pixels, so that a change is a function: the same
image is changed in the same way under any file name, in any order and on any number of processes.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from cl_adapters.benchmarks.data.stores import Pixels
from cl_adapters.errors import InputError, unknown_name

__all__ = ["KINDS", "DomainMix", "KindOfChange", "PixelChange"]

_NOISE, _MIX = 1, 2  # keep the chance of one purpose apart from that of another


class PixelChange(Protocol):
    """A function of an image, uint8 (H, W, 3), that leaves its argument as it is."""

    def __call__(self, pixels: Pixels) -> Pixels:
        """Returns the changed image, of the same size."""


@dataclass(frozen=True)
class KindOfChange:
    """A change of one kind.

    Args:
        kind: One of `KINDS`.
        severity: How far, in [0, 1].
        seed: Seed of the chance in it.

    Raises:
        InputError: If the kind is unknown or the severity out of range.

    Example:
        >>> KindOfChange("inversion")(np.array([[[0, 100, 255]]], dtype=np.uint8)).tolist()
        [[[255, 155, 0]]]
    """

    kind: str
    severity: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("kind of shift", self.kind, KINDS)
        if not 0 <= self.severity <= 1:
            raise InputError(f"severity must lie in [0, 1], got {self.severity}")

    def __call__(self, pixels: Pixels) -> Pixels:
        """Returns the changed image."""
        if self.severity == 0:
            return pixels
        return KINDS[self.kind](pixels, self.severity, self.seed)


@dataclass(frozen=True)
class DomainMix:
    """Some images in a new domain, the others still in an old one.

    Args:
        old: Change of the old domain; None for unchanged images.
        new: Change of the new domain.
        share: Share of the images that are in the new domain, in [0, 1]. Those of a smaller share
            are among those of a larger one.
        seed: Seed of which images these are.
    """

    old: PixelChange | None
    new: PixelChange | None
    share: float
    seed: int = 0

    def __call__(self, pixels: Pixels) -> Pixels:
        """Returns the image as the domain that it falls to has it."""
        is_new = _generator(pixels, self.seed, _MIX).random() < self.share
        change = self.new if is_new else self.old
        return pixels if change is None else change(pixels)


def _generator(pixels: Pixels, seed: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, zlib.crc32(pixels.tobytes())])


def _rotate(pixels: Pixels, severity: float, _seed: int) -> Pixels:
    turned = Image.fromarray(pixels).rotate(90 * severity, Image.Resampling.BICUBIC)
    return np.array(turned)


def _blur(pixels: Pixels, severity: float, _seed: int) -> Pixels:
    radius = severity * min(pixels.shape[:2]) / 8
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _add_noise(pixels: Pixels, severity: float, seed: int) -> Pixels:
    noise = _generator(pixels, seed, _NOISE).normal(0, 0.3 * 255 * severity, pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def _invert(pixels: Pixels, severity: float, _seed: int) -> Pixels:
    return np.array(ImageOps.solarize(Image.fromarray(pixels), round(256 * (1 - severity))))


def _flatten(pixels: Pixels, severity: float, _seed: int) -> Pixels:
    return np.array(ImageEnhance.Contrast(Image.fromarray(pixels)).enhance(1 - 0.85 * severity))


def _tint(pixels: Pixels, severity: float, _seed: int) -> Pixels:
    gains = 1 - severity * np.array([0.0, 0.4, 0.8])
    tinted: Pixels = np.rint(pixels * gains).astype(np.uint8)
    return tinted


KINDS: Final[dict[str, Callable[[Pixels, float, int], Pixels]]] = {
    "rotation": _rotate,
    "blur": _blur,
    "noise": _add_noise,
    "inversion": _invert,
    "contrast": _flatten,
    "colour": _tint,
}
