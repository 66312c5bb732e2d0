"""What growth bought: points of accuracy that a run loses without adapters that it has grown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cl_adapters.errors import InputError
from cl_adapters.records.ablation import ABLATION, read_ablation
from cl_adapters.reports.experience_names import experience_label
from cl_adapters.reports.groups import clean_text
from cl_adapters.reports.growth import History
from cl_adapters.reports.load import LoadedRuns, Run
from cl_adapters.reports.seeds import mean_interval

__all__ = ["Worth", "bought", "read_worth", "read_worths"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Worth:
    """What the grown adapters of one run are worth at its end.

    Attributes:
        adapters: Block and number, from 0, of grown adapters that came together; the first row of
            `points` leaves out all of them, each other one of these.
        points: [row, i]: accuracy on test experience i less that without, in points; the last
            column over all test images. NaN where an experience has none.
        images: Test images, by experience.
        counts: [row, i]: images right as it is, right without, right both ways.
        unit: What grew: an adapter of a block, a path of one in each, or a whole set.
    """

    adapters: tuple[tuple[tuple[int, int], ...], ...]
    points: Floats
    images: tuple[int, ...]
    counts: NDArray[np.int64]
    unit: str = "adapter"

    def names(self, history: History) -> list[str]:
        """Returns what each row of `points` leaves out, and when that was grown."""
        grown = {(block, held - 1): t for (t, block), (held, _) in history.growths.items()}
        found = ["all that was grown"]
        for group in self.adapters:
            block, number = group[0]
            is_whole = self.unit != "adapter"
            when = grown.get((0 if is_whole else block, number))  # a network grows as block 0
            domain = history.domains[when].domain if when in history.domains else ""
            since = (
                ""
                if when is None
                else f", since {experience_label(when + 1, clean_text(domain, 14))}"
            )
            place = self.unit if is_whole else f"block {block}, adapter"
            found.append(f"{place} {number + 1}{since}")
        return found


def read_worth(run: Run) -> Worth | None:
    """Returns what `cl-adapters ablate` has measured on a run; None if it has not.

    Raises:
        InputError: If the file is damaged or does not fit the run.
    """
    found = read_ablation(run.folder)
    if found is None:
        return None
    rows = [(found.right, each.right, each.both) for each in found.without]
    counts = np.array(rows, dtype=np.int64).transpose(0, 2, 1)
    images = np.array(found.images, dtype=np.int64)
    if len(images) != len(run.record.experiences) or counts.shape[1] != len(images):
        raise InputError(
            f"{ABLATION} must hold a number for each of the {len(run.record.experiences)} "
            f"experiences, got {len(images)}"
        )
    lost = counts[:, :, 0] - counts[:, :, 1]
    shares = np.full(lost.shape, np.nan)
    np.divide(lost, images, out=shares, where=images > 0)
    points = 100 * np.column_stack([shares, lost.sum(axis=1) / images.sum()])
    adapters = tuple(each.adapters for each in found.without[1:])
    return Worth(adapters, points, found.images, counts, found.unit)


def read_worths(loaded: LoadedRuns) -> dict[Path, Worth]:
    """Returns what growth is worth in each finished run that was asked, by its folder."""
    return loaded.read_all(read_worth)


def bought(label: str, worths: Sequence[Worth]) -> str:
    """Returns a sentence: what all grown adapters of a method are worth, over its runs.

    Args:
        label: The method.
        worths: Of its runs, at least one.

    Example:
        >>> counts = np.array([[[8, 6, 6]]])
        >>> worth = Worth((((10, 1),),), np.array([[20.0, 20.0], [20.0, 20.0]]), (10,), counts)
        >>> bought("sema", [worth])  # doctest: +ELLIPSIS
        'Without the adapters that it has grown (1.0), sema would be 20.0 points less accurate...'
    """
    interval = mean_interval(np.array([each.points[0, -1] for each in worths]))
    half = "" if np.isnan(interval.half_width) else f" ± {interval.half_width:.1f}"
    number = np.mean([len(each.adapters) for each in worths])
    less = "more" if interval.mean < 0 else "less"
    return (
        f"Without the {worths[0].unit}s that it has grown ({number:.1f}), {label} would be "
        f"{abs(interval.mean):.1f}{half} points {less} accurate at the end."
    )
