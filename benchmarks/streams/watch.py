"""How a task-free stream is watched, and what was announced over it."""

import hashlib
import warnings
from dataclasses import asdict, dataclass
from typing import Final

import torch
from torch import Tensor

from cl_adapters.benchmarks.data.features import ImageFeatureExtractor, MemoryFeatureCache
from cl_adapters.benchmarks.data.images import LabelledImages
from cl_adapters.errors import EarlierNameWarning, InputError
from cl_adapters.records.files import digest
from cl_adapters.shift import Detector, find_detector
from cl_adapters.shift.boundaries import Boundary, BoundaryFinder

__all__ = ["BoundaryDetector", "Watch", "find_boundaries"]

_PASS: Final = 64


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How boundaries are looked for.

    Attributes:
        detector: Name of a shift detector.
        reference: Images of a segment that its detector is fitted on.
        window: Images that are judged together.
        patience: Strange windows in a row that make a boundary.
        false_alarm: Share of windows that may be strange though nothing changes, in (0, 1).
        max_images: Most images of a segment that another one follows; None for any number.
    """

    detector: str
    reference: int = 96
    window: int = 32
    patience: int = 1
    false_alarm: float = 0.002
    max_images: int | None = None

    def __post_init__(self) -> None:
        least = self.reference + self.window
        if self.max_images is not None and self.max_images < least:
            raise InputError(
                f"max_images must hold the reference and a window, {least} images, got "
                f"{self.max_images}"
            )

    def finder(self, num_features: int, seed: int = 0) -> BoundaryFinder:
        """Returns a new finder.

        Args:
            num_features: D.
            seed: Seed of the detectors.

        Raises:
            InputError: If the detector is unknown or a number is out of its range.
        """
        kind = find_detector(self.detector)

        def make(segment: int) -> Detector:
            mixed = seed * 1_000_003 + segment
            return kind(num_features, false_alarm=self.false_alarm, seed=mixed)

        return BoundaryFinder(
            make,
            reference=self.reference,
            window=self.window,
            patience=self.patience,
            max_samples=self.max_images,
        )

    def describe(self) -> dict[str, object]:
        """Returns what of it belongs into a run's fingerprint."""
        return asdict(self)


def find_boundaries(features: Tensor, finder: BoundaryFinder) -> list[Boundary]:
    """Returns the boundaries that a finder announces over the features of a flow.

    Shape:
        features: (N, D).
    """
    return [found for part in torch.split(features, _PASS) for found in finder.observe(part)]


class BoundaryDetector:
    """Finds the boundaries of flows of images; what it has computed once, it remembers."""

    def __init__(self) -> None:
        self._cache = MemoryFeatureCache()
        self._found: dict[str, list[Boundary]] = {}

    def boundaries(
        self, images: LabelledImages, extractor: ImageFeatureExtractor, watch: Watch, seed: int = 0
    ) -> list[Boundary]:
        """Returns what is announced over a flow of images.

        Args:
            images: The flow, in order.
            extractor: What computes their features.
            watch: How boundaries are looked for.
            seed: Seed of the detectors.

        Raises:
            InputError: If the detector is unknown or an image cannot be decoded.
        """
        order = hashlib.sha256(b"".join(images.digests)).hexdigest()
        key = digest([order, extractor.describe(), watch.describe(), seed])
        if key not in self._found:
            features = self._cache.features(images, extractor)
            self._found[key] = find_boundaries(features, watch.finder(features.shape[1], seed))
        return self._found[key]


def __getattr__(name: str) -> type[BoundaryDetector]:
    if name == "Announcer":
        warnings.warn(
            "`Announcer` is `BoundaryDetector` now; the earlier name goes in the next version",
            EarlierNameWarning,
            stacklevel=2,
        )
        return BoundaryDetector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
