"""All images of a run that was continued without those of before: whether they are there again."""

from collections.abc import Mapping
from typing import Any

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.joining import JoinedSource
from cl_adapters.benchmarks.running.fingerprint import fingerprint_of_images
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.scenarios import plan_stream
from cl_adapters.records.run_record import RunRecord

__all__ = ["has_trained_on", "with_old_images"]


def with_old_images(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a recipe that reads the images of all parts, whatever was evaluated."""
    parts = [
        {name: value for name, value in part.items() if name != "old_test"}
        for part in config.get("continued", [])
    ]
    return {**config, **({"continued": parts} if parts else {})}


def has_trained_on(record: RunRecord, source: ImageSource) -> bool:
    """Returns whether a run has learned from these images.

    Args:
        record: Its record.
        source: What the recipe of `with_old_images` reads.
    """
    return _is_same(record.fingerprint, record.config, source)


def _is_same(known: Mapping[str, Any], config: Mapping[str, Any], source: ImageSource) -> bool:
    learned = known.get("data", {}).get("learned")
    if learned is None:
        return bool(known.get("data") == source.describe())
    parts = list(config["continued"])
    start = max(place for place, each in enumerate(parts) if each.get("old_test") is not None)
    before, later = source, parts[start:]
    whole = RunConfig.parse(with_old_images(config))
    found = fingerprint_of_images(source, whole, plan_stream(source, whole))
    for _ in later:
        if not isinstance(before, JoinedSource):
            return False
        before = before.before
    entries: Any = found["continued"]
    is_same = bool(entries[start:] == known["continued"])
    return is_same and _is_same(learned["before"], {**config, "continued": parts[:start]}, before)
