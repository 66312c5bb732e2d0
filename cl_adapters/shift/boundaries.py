"""Boundaries in a stream that announces none, found from the past alone.

A stream falls into segments. The first samples of a segment are its reference: a detector of its
own is fitted on them. What follows is judged in windows, one after the other, until as many in a
row as patience asks for are strange. Then a boundary is announced at the start of the first of
them, and these windows are the first samples of the next segment.

    |-- reference --|- window -|- window -|-- strange --|-- strange --|
    start of the segment                  the boundary                announced here (patience 2)

Shapes: n samples of a batch, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cl_adapters.errors import InputError, check_positive
from cl_adapters.shift.base import Detector, Verdict

__all__ = ["Boundary", "BoundaryFinder"]


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """Where a segment of a stream begins.

    Attributes:
        start: Number of samples before it.
        announced: Number of samples that had to come before it could be announced.
        score: Of the first strange window; None where the segment had merely become too long.
        threshold: What that score had to exceed; None as above.
    """

    start: int
    announced: int
    score: float | None = None
    threshold: float | None = None

    @property
    def is_forced(self) -> bool:
        """Whether the segment before had become too long, and nothing was detected."""
        return self.score is None


class BoundaryFinder:
    """Watches the features of a stream and announces where they change.

    What is announced depends on the samples in their order, not on how they are cut into batches,
    and nothing that comes later changes it. Memory is bounded by the reference or the windows of
    one segment, and one batch.

    Args:
        make_detector: From the number of a segment, counted from 0, to its new detector.
        reference: Samples that a detector is fitted on, at least its `min_samples`.
        window: Samples that are judged together; positive.
        patience: Strange windows in a row that make a boundary; positive.
        max_samples: Most samples of a segment that another one follows; None for any number. A
            boundary is forced before a window that would not fit.

    Raises:
        InputError: If a number is out of its range.

    Example:
        >>> from cl_adapters.shift.mahalanobis import Mahalanobis
        >>> features = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
        >>> features[160:] += 5
        >>> finder = BoundaryFinder(lambda segment: Mahalanobis(4, seed=segment))
        >>> [boundary.start for part in features.split(10) for boundary in finder.observe(part)]
        [160]
    """

    def __init__(
        self,
        make_detector: Callable[[int], Detector],
        *,
        reference: int = 96,
        window: int = 32,
        patience: int = 1,
        max_samples: int | None = None,
    ) -> None:
        for name, value in (("reference", reference), ("window", window), ("patience", patience)):
            check_positive(name, value)
        if max_samples is not None and max_samples < reference + window:
            raise InputError(
                f"`max_samples` must hold the reference and a window, {reference + window} "
                f"samples, got {max_samples}"
            )
        self.reference, self.window, self.patience = reference, window, patience
        self.max_samples = max_samples
        self._make_detector = make_detector
        self._detector: Detector | None = None
        self._segment = 0
        self._start = 0
        self._judged = 0  # samples that were taken, of all that came
        self._waiting = torch.zeros(0, 0)  # (n, D) from the first batch on
        self._strange: list[tuple[Tensor, Verdict]] = []

    def observe(self, features: Tensor) -> list[Boundary]:
        """Takes the next samples of the stream and returns the boundaries that they reveal.

        Shape:
            features: (n, D), of any n.

        Raises:
            InputError: If the shape does not fit, a number is not finite, or a detector needs a
                larger reference.
        """
        features = self._checked(features)
        known = self._waiting.shape[1] > 0
        self._waiting = torch.cat((self._waiting, features)) if known else features
        found = []
        while len(self._waiting) >= self._needed():
            boundary = self._advance()
            if boundary is not None:
                found.append(boundary)
        return found

    def _checked(self, features: Tensor) -> Tensor:
        width = self._waiting.shape[1]
        if features.ndim != 2 or features.shape[1] != (width or features.shape[1]):
            raise InputError(
                f"features must have shape (n, {width or 'D'}), got {tuple(features.shape)}"
            )
        if not bool(torch.isfinite(features).all()):
            raise InputError("features must be finite, got NaN or infinity")
        return features.detach().clone()

    def _needed(self) -> int:
        return self.reference if self._detector is None else self.window

    def _advance(self) -> Boundary | None:
        is_full = self._detector is not None and self._is_full()
        rows = self._take()
        if is_full:
            return self._begin_segment([rows])
        if self._detector is None:
            self._detector = self._make_detector(self._segment)
            self._detector.fit(rows)
            return None
        verdict = self._detector.check(rows)
        self._strange = [*self._strange, (rows, verdict)] if verdict.fired else []
        if len(self._strange) < self.patience:
            return None
        return self._begin_segment([window for window, _ in self._strange], self._strange[0][1])

    def _is_full(self) -> bool:
        length = self._judged - self._start
        return self.max_samples is not None and length + self.window > self.max_samples

    def _take(self) -> Tensor:
        count = self._needed()
        rows, self._waiting = self._waiting[:count], self._waiting[count:]
        self._judged += count
        return rows

    def _begin_segment(self, rows: list[Tensor], verdict: Verdict | None = None) -> Boundary:
        """Ends the segment before some rows, which go on to the next one."""
        announced = self._judged
        self._start = self._judged = announced - sum(map(len, rows))
        self._waiting = torch.cat((*rows, self._waiting))
        self._segment += 1
        self._detector, self._strange = None, []
        return Boundary(
            start=self._start,
            announced=announced,
            score=None if verdict is None else verdict.score,
            threshold=None if verdict is None else verdict.threshold,
        )
