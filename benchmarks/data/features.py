"""What a frozen backbone makes of images, computed once an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from cl_adapters.benchmarks.data.images import LabelledImages
from cl_adapters.images.transforms import Preprocess
from cl_adapters.records.files import digest
from cl_adapters.vit.pretrained import PretrainedViT

__all__ = ["ImageFeatureExtractor", "MemoryFeatureCache"]

_BATCH: Final = 64


@dataclass(frozen=True, kw_only=True)
class ImageFeatureExtractor:
    """A frozen backbone and how it is shown images; nothing of it is trained or drawn at random.

    Attributes:
        backbone: The frozen ViT.
        preprocess: From decoded image to its input, as in evaluation.
        device: Where it computes.
        precision: `bf16` computes under autocast.
    """

    backbone: PretrainedViT
    preprocess: Preprocess
    device: torch.device
    precision: Literal["fp32", "bf16"]

    def describe(self) -> str:
        """Returns a digest of all that decides about the features of an image."""
        parts = [self.backbone.digest, self.preprocess.describe(), str(self.device), self.precision]
        return digest(parts)

    @torch.inference_mode()
    def features(self, images: LabelledImages, indices: Sequence[int]) -> Tensor:
        """Returns the features of some images, (N, D) in float32 on the CPU, N at most 64.

        Every batch is filled up to one size: an image gives the same numbers in any company.
        """
        rows = [self.preprocess.evaluate(images.read(index)) for index in indices]
        batch = torch.stack(rows + rows[-1:] * (_BATCH - len(rows))).to(self.device)
        model = self.backbone.model.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            features: Tensor = model(batch)
        return features[: len(rows)].float().cpu()


class MemoryFeatureCache:
    """Remembers the features of each image by its digest, for as long as it lives."""

    def __init__(self) -> None:
        self._known: dict[str, dict[bytes, Tensor]] = {}

    def features(self, images: LabelledImages, extractor: ImageFeatureExtractor) -> Tensor:
        """Returns the features of all images, (N, D) in float32 on the CPU.

        Raises:
            InputError: If an image cannot be decoded.
        """
        known = self._known.setdefault(extractor.describe(), {})
        places = {image: index for index, image in enumerate(images.digests)}
        missing = [index for image, index in places.items() if image not in known]
        for start in range(0, len(missing), _BATCH):
            part = missing[start : start + _BATCH]
            rows = extractor.features(images, part)
            known.update(
                (images.digests[index], row) for index, row in zip(part, rows, strict=True)
            )
        return torch.stack([known[image] for image in images.digests])
