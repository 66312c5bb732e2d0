"""How a run chose one of its frozen adapters for each test image, from `retrieval.parquet`.

Experiences and adapters are counted from 0 here, as in the file. Every share is in percent and over
the test images of the experiences learned so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cl_adapters.errors import InputError
from cl_adapters.records.event_kinds import Active, Drift
from cl_adapters.records.tables import RETRIEVAL_COLUMNS, read_retrieval
from cl_adapters.reports.events import event_error
from cl_adapters.reports.load import Run
from cl_adapters.reports.metrics import accuracy_matrix

__all__ = ["Retrieval", "confusion", "measure_retrieval", "rounds_used", "shares"]

Floats = NDArray[np.float64]

_FILE: Final = "retrieval.parquet"
_KEY: Final = ["experience", "target_experience", "sample"]


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How one run chose adapters.

    Attributes:
        shares: Values of `tables.retrieval.RETRIEVAL_MEASURES` by name, one an experience trained;
            NaN where nothing was evaluated.
        rounds: [t, r] is the share of images that asked r + 1 adapters after experience t.
        confusion: [i, k] is the share of the images of experience i that adapter k answered after
            the last experience; NaN in the row of an experience without images.
        drift: [i, j] is the distance of frozen adapter j from i, relative to the size of i, after
            the last experience; NaN where it is not a number, None if it was not recorded.
    """

    shares: dict[str, Floats]
    rounds: Floats
    confusion: Floats
    drift: Floats | None

    @property
    def num_experiences(self) -> int:
        """T, the experiences of the run."""
        return len(self.confusion)


def measure_retrieval(run: Run) -> Retrieval | None:
    """Measures how a run chose its adapters; None if its method does not choose.

    Raises:
        InputError: If the table or an event is damaged or does not fit the run.
    """
    frame = read_retrieval(run.folder)
    if frame.empty:
        return None
    _check(frame, run)
    num_experiences = len(run.record.experiences)
    seen = frame[frame["target_experience"] <= frame["experience"]]
    return Retrieval(
        shares=shares(seen, num_experiences, _brought(run)),
        rounds=rounds_used(seen, num_experiences),
        confusion=confusion(seen[seen["experience"] == num_experiences - 1], num_experiences),
        drift=_last_drift(run),
    )


def shares(
    frame: pd.DataFrame, num_experiences: int, brought: Sequence[int] | None = None
) -> dict[str, Floats]:
    """Returns each measure after each experience; see `Retrieval.shares`.

    Args:
        frame: Rows as in `cl_adapters.records.tables.RETRIEVAL_COLUMNS`.
        num_experiences: Length of each array.
        brought: Of each experience the one that brought the adapter that it belongs to; None:
            each brought its own.

    Example:
        >>> row = {"experience": 0, "target_experience": 0, "target": 1, "prediction": 1}
        >>> frame = pd.DataFrame([row | {"uncorrected": 0, "visited": [0], "adapter": 0}])
        >>> found = shares(frame, 1)
        >>> found["right_adapter"].tolist(), found["saved"].tolist(), found["rounds"].tolist()
        ([100.0], [100.0], [1.0])
    """
    first = frame["visited"].str[0]
    was_right = frame["uncorrected"] == frame["target"]
    is_right = frame["prediction"] == frame["target"]
    own = frame["target_experience"]
    own = own if brought is None else own.map(dict(enumerate(brought)))
    claims = {
        "right_adapter": frame["adapter"] == own,
        "right_first_adapter": first == own,
        "corrected": frame["adapter"] != first,
        "saved": ~was_right & is_right,
        "spoiled": was_right & ~is_right,
    }
    columns = {name: 100.0 * claim for name, claim in claims.items()}
    columns["rounds"] = frame["visited"].str.len().astype(np.float64)
    means = pd.DataFrame(columns).groupby(frame["experience"]).mean()
    means = means.reindex(range(num_experiences))
    return {name: means[name].to_numpy(np.float64) for name in columns}


def rounds_used(frame: pd.DataFrame, num_experiences: int) -> Floats:
    """Returns how many adapters were asked for how many images; see `Retrieval.rounds`.

    Example:
        >>> frame = pd.DataFrame({"experience": [0, 0], "visited": [[0], [0, 1, 0]]})
        >>> rounds_used(frame, 1).tolist()
        [[50.0, 0.0, 50.0]]
    """
    rounds = frame["visited"].str.len() - 1
    return _table(frame["experience"], rounds, (num_experiences, int(rounds.max()) + 1))


def confusion(frame: pd.DataFrame, num_experiences: int) -> Floats:
    """Returns which adapter answered the images of which experience; see `Retrieval.confusion`.

    Example:
        >>> frame = pd.DataFrame({"target_experience": [0, 0, 1, 1], "adapter": [0, 1, 1, 1]})
        >>> confusion(frame, 2).tolist()
        [[50.0, 50.0], [0.0, 100.0]]
    """
    return _table(frame["target_experience"], frame["adapter"], (num_experiences, num_experiences))


def _table(rows: "pd.Series[Any]", columns: "pd.Series[Any]", shape: tuple[int, int]) -> Floats:
    # Percent of each row; NaN in a row without images.
    cell = rows.to_numpy(np.int64) * shape[1] + columns.to_numpy(np.int64)
    counts = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    percent: Floats = np.full(shape, np.nan)
    np.divide(100 * counts, totals, out=percent, where=totals > 0)
    return percent


def _check(frame: pd.DataFrame, run: Run) -> None:
    num_experiences, num_classes = len(run.record.experiences), len(run.record.classes)
    for name in RETRIEVAL_COLUMNS:
        if name == "visited":
            continue
        if not pd.api.types.is_integer_dtype(frame[name]):
            raise InputError(f"{_FILE}: {name} must hold whole numbers only")
        is_class = name in {"target", "prediction", "uncorrected"}
        limit = num_classes if is_class else num_experiences
        if name != "sample" and not frame[name].between(0, limit - 1).all():
            raise InputError(f"{_FILE}: {name} must lie in [0, {limit})")
    _check_visited(frame)
    if frame.duplicated(_KEY).any():
        raise InputError(f"{_FILE}: a sample must stand once per experience and target_experience")
    if not np.array_equal(accuracy_matrix(frame), run.matrix, equal_nan=True):
        raise InputError(
            f"{_FILE}: its predictions must be those of predictions.parquet, "
            "their accuracies differ"
        )


def _check_visited(frame: pd.DataFrame) -> None:
    visited = frame["visited"]
    if not visited.map(lambda asked: isinstance(asked, np.ndarray) and len(asked) > 0).all():
        raise InputError(f"{_FILE}: visited must list at least one adapter in each row")
    asked = np.concatenate(visited.to_list())
    newest = np.repeat(frame["experience"].to_numpy(), visited.str.len())
    if asked.dtype.kind not in "iu" or (asked < 0).any() or (asked > newest).any():
        raise InputError(f"{_FILE}: visited must name adapters of experiences already trained")
    if (visited.str[-1] != frame["adapter"]).any():
        raise InputError(f"{_FILE}: adapter must be the last one of visited")


def _brought(run: Run) -> list[int]:
    """Returns, for each experience, the one that brought the adapter that it belongs to."""
    first: dict[int, int] = {}
    found = list(range(len(run.record.experiences)))
    for event in run.events:
        if isinstance(event, Active) and event.experience < len(found):
            found[event.experience] = first.setdefault(event.adapter, event.experience)
    return found


def _last_drift(run: Run) -> Floats | None:
    num_experiences = len(run.record.experiences)
    found: dict[int, Floats] = {}
    for event in run.events:
        if not isinstance(event, Drift):
            continue
        if event.experience >= num_experiences or event.experience in found:
            raise InputError(
                "events.jsonl: a drift event must stand once per experience in "
                f"[0, {num_experiences}), got experience {event.experience}"
            )
        found[event.experience] = _distances(event)
    return found.get(num_experiences - 1)


def _distances(event: Drift) -> Floats:
    """Returns the distances; NaN where a run diverged, whose predictions still count."""
    size = event.experience + 1
    if len(event.distances) != size:
        rule = f"must be a square of {size} rows, one an adapter"
        raise event_error(event, "distances", rule, event.distances)
    values = np.array(event.distances, dtype=np.float64)
    if (values < 0).any():
        raise event_error(event, "distances", "must not be negative", values.min())
    return np.where(np.isfinite(values), values, np.nan)
