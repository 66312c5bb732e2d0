"""Features of a teacher network, computed once and kept in a file.

The student of `cl_adapters.benchmarks.maintenance.pretrain` learns to predict them. The cache is
named for the digests of images and weights, so a change of either computes them afresh.
"""

import hashlib
import logging
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.benchmarks.data.images import LabelledImages
from cl_adapters.vit.pretrained import load_backbone

__all__ = ["TEACHER", "read_pixels", "teacher_features"]

TEACHER: Final = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
_LOG: Final = logging.getLogger(__name__)


def read_pixels(images: LabelledImages, side: int) -> Tensor:
    """Decodes all images of a set into memory.

    Args:
        images: Images of any size.
        side: Height and width of the result; other sizes are resampled (bicubic, antialiased).

    Returns:
        Shape: (N, 3, side, side), uint8.
    """
    result = torch.empty(len(images), 3, side, side, dtype=torch.uint8)
    for index in range(len(images)):
        pixels = torch.from_numpy(images.read(index).copy()).permute(2, 0, 1)  # (3, H, W)
        if pixels.shape[1:] != (side, side):
            resized = functional.interpolate(
                pixels[None].float(), (side, side), mode="bicubic", antialias=True
            )
            pixels = resized[0].round().clamp(0, 255).to(torch.uint8)
        result[index] = pixels
    return result


def teacher_features(pixels: Tensor, weights: Path, cache: Path, *, side: int = 224) -> Tensor:
    """Returns the teacher's class tokens of all images, from the cache if they are there.

    Args:
        pixels: Shape: (N, 3, H, W), uint8.
        weights: Weight file of `TEACHER`, safetensors.
        cache: Folder for the features.
        side: Size in pixels that images are scaled to (bicubic); the forward pass is bf16.

    Returns:
        Shape: (N, 192), fp32.

    Raises:
        InputError: If the weight file cannot be read or does not fit.
    """
    digest = hashlib.sha256(f"{tuple(pixels.shape)}".encode())
    digest.update(pixels.numpy().tobytes())
    digest.update(weights.read_bytes())
    path = cache / f"teacher-{side}-{digest.hexdigest()[:16]}.safetensors"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        teacher = load_backbone(TEACHER, weights=weights, image_size=side).model.eval()
        part = path.with_suffix(".tmp")  # a run stopped while it writes leaves no broken cache
        save_file({"features": _compute(pixels, teacher, side)}, part)
        part.replace(path)
    features: Tensor = load_file(path)["features"]
    return features.float()


@torch.inference_mode()
def _compute(pixels: Tensor, teacher: nn.Module, side: int) -> Tensor:
    features = []
    for start in range(0, len(pixels), 32):
        batch = pixels[start : start + 32].float().div(127.5).sub(1)
        batch = functional.interpolate(batch, (side, side), mode="bicubic", align_corners=False)
        with torch.autocast("cpu", torch.bfloat16):
            features.append(teacher(batch).half())
        if start % 1024 == 0:
            _LOG.info("teacher: %d of %d images", start, len(pixels))
    return torch.cat(features)
