"""From decoded uint8 images to the network's input, equal to torchvision's transforms on Pillow.

Evaluation: short side resized to S (bicubic, antialiased), centre crop of S x S. Training: the
same, or torchvision's `RandomResizedCrop` with or without a horizontal flip. Then scaled to [0, 1]
and normalised. `PIPELINES` holds what the authors of published results do instead: a resize to 8/7
of S before the centre crop, and their own crops and filters.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.images.decoding import MAX_RATIO

__all__ = [
    "INPUT_RANGES",
    "PIPELINES",
    "PIXELS_VERSION",
    "RATIO",
    "Preprocess",
    "Triple",
    "crop_box",
    "pipeline_settings",
]

Triple = tuple[float, float, float]
# Goes up when the same settings give other pixels, so that a cache forgets what it knew.
PIXELS_VERSION: Final = 2
Box = tuple[int, int, int, int]

# Mean and standard deviation by name; None: those of the network's own configuration.
INPUT_RANGES: Final[dict[str, tuple[Triple, Triple] | None]] = {
    "timm": None,
    "pilot_01": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
RATIO: Final = (3 / 4, 4 / 3)
FILTERS: Final = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
# Published pipelines by name, as settings of `Preprocess`; `plain` takes the recipe's own. PILOT
# names bicubic for the test only: its random crop has torchvision's default filter, bilinear.
# RanPAC's code does the same, but for the images of CIFAR, of which its test cuts off no border.
# InfLoRA's does what LAE's does, but for CIFAR likewise.
_PILOT: Final[dict[str, Any]] = {
    "interpolation": "bicubic",
    "train_interpolation": "bilinear",
    "augment": "crop_flip",
    "scale": (0.05, 1.0),
}
_LAE: Final[dict[str, Any]] = {
    "interpolation": "bilinear",
    "augment": "crop_flip",
    "scale": (0.08, 1.0),
}
PIPELINES: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "pilot": _PILOT,
    "ranpac": {**_PILOT, "resize": None},
    "lae": _LAE,
    "inflora": {**_LAE, "resize": None},
}


def pipeline_settings(name: str, image_size: int) -> dict[str, Any]:
    """Returns what a published pipeline makes of `Preprocess`, for an input of S pixels.

    Args:
        name: A name in `PIPELINES`.
        image_size: Side S of the network's input.

    Example:
        >>> pipeline_settings("lae", 224)["resize"]
        256
    """
    settings = PIPELINES[name]
    return {"resize": int(256 / 224 * image_size), **settings} if settings else {}


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """The pixel pipeline of a run.

    Attributes:
        image_size: Side S of the network's input in pixels, at least 1.
        mean: Mean per channel, subtracted from pixels in [0, 1].
        std: Standard deviation per channel, above 0.
        interpolation: Filter of every resize.
        augment: What training adds: nothing, random resized crops, or these with flips.
        scale: Smallest and largest share of the image's area that a random crop covers.
        resize: Short side before the centre crop of evaluation, at least S; None for S.
        train_interpolation: Filter of random crops; None for `interpolation`.
        as_bytes: Leave scaling and normalising to the network (`AdaptedViT.inputs`), which does it
            where it computes: the output is then uint8.

    Example:
        >>> pixels = np.full((8, 8, 3), 255, dtype=np.uint8)
        >>> Preprocess(image_size=4, mean=(0.5,) * 3, std=(0.5,) * 3).evaluate(pixels)[0, 0]
        tensor([1., 1., 1., 1.])
    """

    image_size: int
    mean: Triple
    std: Triple
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    augment: Literal["none", "crop", "crop_flip"] = "none"
    scale: tuple[float, float] = (0.05, 1.0)
    resize: int | None = None
    train_interpolation: Literal["bicubic", "bilinear"] | None = None
    as_bytes: bool = False

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise InputError(f"image size must be at least 1 pixel, got {self.image_size}")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std):
            raise InputError(
                "mean and std must hold three numbers each and std be positive, "
                f"got {self.mean} and {self.std}"
            )
        for name in (self.interpolation, self.train_interpolation or self.interpolation):
            if name not in FILTERS:
                raise InputError(f"interpolation must be one of {', '.join(FILTERS)}, got {name!r}")
        if self.resize is not None and self.resize < self.image_size:
            raise InputError(
                f"resize must be at least the image size, {self.image_size}, got {self.resize}"
            )
        if self.augment not in ("none", "crop", "crop_flip"):
            raise InputError(f"augment must be one of none, crop, crop_flip, got {self.augment!r}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"scale must satisfy 0 < low <= high <= 1, got {self.scale}")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Returns the pipeline whose `describe` gave these settings, among others.

        Raises:
            InputError: If a setting is missing or breaks its rule.
        """
        names = {each.name for each in fields(cls)} - {"as_bytes"}
        found: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in settings.items()
            if name in names
        }
        try:
            return cls(**found)
        except TypeError as error:
            raise InputError(
                f"pixels must hold the settings of a pipeline, got {dict(settings)!r}: {error}"
            ) from error

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (self.mean, self.std))
        return mean, std

    def describe(self) -> dict[str, object]:
        """Returns the settings for a run's fingerprint; those that are None have no effect."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value is not None and key != "as_bytes"
        }

    def describe_evaluation(self) -> dict[str, object]:
        """Returns the settings that decide about `evaluate`."""
        others = ("augment", "scale", "train_interpolation")
        return {key: value for key, value in self.describe().items() if key not in others}

    def evaluate(self, image: npt.NDArray[np.uint8]) -> Tensor:
        """Returns the network's input for an image, without chance.

        Shape:
            - image: (H, W, 3) uint8
            - output: (3, S, S) float32
        """
        picture = _resize_and_crop(
            Image.fromarray(image),
            self.resize or self.image_size,
            self.image_size,
            FILTERS[self.interpolation],
        )
        return self._to_tensor(picture)

    def train(
        self, image: npt.NDArray[np.uint8], generator: torch.Generator | None = None
    ) -> Tensor:
        """Returns the network's input for an image, augmented.

        Args:
            image: The decoded image.
            generator: Source of chance; by default torch's global one, which the runner seeds.

        Shape:
            - image: (H, W, 3) uint8
            - output: (3, S, S) float32
        """
        if self.augment == "none":
            return self.evaluate(image)
        top, left, height, width = crop_box(
            image.shape[0], image.shape[1], scale=self.scale, generator=generator
        )
        picture = Image.fromarray(image[top : top + height, left : left + width])
        resample = FILTERS[self.train_interpolation or self.interpolation]
        picture = picture.resize((self.image_size, self.image_size), resample)
        if self.augment == "crop_flip" and torch.rand(1, generator=generator).item() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return self._to_tensor(picture)

    def _to_tensor(self, picture: Image.Image) -> Tensor:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        if self.as_bytes:
            return pixels.contiguous()
        values = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        mean, std = self._statistics
        return values.sub_(mean).div_(std)


def _resize_and_crop(
    picture: Image.Image, resize: int, size: int, resample: Image.Resampling
) -> Image.Image:
    """Resizes the short side to `resize` and cuts out the centre, with torchvision's rounding."""
    short, long = sorted(picture.size)
    resized = resize * long // short
    along, across = round((resized - size) / 2), round((resize - size) / 2)
    is_wide = picture.width >= picture.height
    left, top = (along, across) if is_wide else (across, along)
    if long <= MAX_RATIO * short:
        whole = picture.resize((resized, resize) if is_wide else (resize, resized), resample)
        return whole.crop((left, top, left + size, top + size))
    scale = long / resized
    low, high = along * scale, min((along + size) * scale, float(long))
    start, end = across * short / resize, (across + size) * short / resize
    box = (low, start, high, end) if is_wide else (start, low, end, high)
    return picture.resize((size, size), resample, box=box)


def crop_box(
    height: int, width: int, *, scale: tuple[float, float], generator: torch.Generator | None = None
) -> Box:
    """Draws the crop of torchvision's `RandomResizedCrop`, with a generator of one's own.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        scale: Smallest and largest share of the image's area.
        generator: Source of chance; by default torch's global one.

    Returns:
        Top, left, height and width of the crop.

    Example:
        >>> crop_box(32, 32, scale=(1.0, 1.0), generator=torch.Generator().manual_seed(0))
        (0, 0, 32, 32)
    """
    # In float32, as torchvision computes it: a crop may else differ by a pixel.
    low, high = torch.log(torch.tensor(RATIO)).tolist()
    for _ in range(10):
        area = height * width * _uniform(scale[0], scale[1], generator).item()
        ratio = torch.exp(_uniform(low, high, generator)).item()
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(torch.randint(height - crop_height + 1, (1,), generator=generator))
            left = int(torch.randint(width - crop_width + 1, (1,), generator=generator))
            return top, left, crop_height, crop_width
    crop_width = min(width, max(1, round(height * RATIO[1])))
    crop_height = min(height, max(1, round(width / RATIO[0])))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def _uniform(low: float, high: float, generator: torch.Generator | None) -> Tensor:
    return torch.empty(1).uniform_(low, high, generator=generator)
