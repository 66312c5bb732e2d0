"""From a finished run to the recipe of one that goes on with it, and whether that can be."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.joining import JoinedSource, LearnedSource
from cl_adapters.benchmarks.running.fingerprint import fingerprint_of_images
from cl_adapters.benchmarks.running.parent import NETWORK_KEYS, Parent
from cl_adapters.benchmarks.running.prepare import PreparedRun
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.recipe_parts import NO_OLD_TEST
from cl_adapters.benchmarks.running.scenarios import plan_stream
from cl_adapters.errors import InputError, listed
from cl_adapters.paths import user_path
from cl_adapters.strategies.core.strategy import AdapterStrategy

__all__ = ["continued_config", "go_on_with"]


def continued_config(
    parent: Parent, data: str | Path, part: Mapping[str, Any]
) -> tuple[RunConfig, list[str]]:
    """Returns the recipe that learns one more part after all that a run has learned.

    Args:
        parent: The run.
        data: Where the images of the part are.
        part: Other keys of the part; those that are None are left out.

    Returns:
        The recipe; and what its user should know: which old images are no longer there.

    Raises:
        InputError: If a value breaks its rule, or the run's stream cannot go on.
    """
    said = {name: value for name, value in part.items() if value is not None}
    given: dict[str, Any] = {"data": str(data), **said}
    if "old_test" in given:
        given["old_test"] = str(given["old_test"])
    notes = []
    missing = _missing(parent)
    if missing and "old_test" not in given:
        given["old_test"] = NO_OLD_TEST
        notes.append(
            f"there is no {listed(missing)} any more: only the new images are evaluated "
            "(--old-test names a folder of old test images)"
        )
    config = parent.record.config
    parts = [*config.get("continued", []), given]
    return RunConfig.parse({**config, "continued": parts}), notes


def _missing(parent: Parent) -> list[str]:
    """Returns what of the data that a run was evaluated on does not exist."""
    config = parent.record.config
    parts = config.get("continued", [])
    starts = [number for number, part in enumerate(parts) if part.get("old_test") is not None]
    places = [part["data"] for part in parts[starts[-1] if starts else 0 :]]
    if starts:
        old = parts[starts[-1]]["old_test"]
        places += [old] if old != NO_OLD_TEST else []
    else:
        places += [config["data"]] if config.get("data") is not None else []
    return [place for place in places if not user_path(place).exists()]


def go_on_with(parent: Parent, prepared: PreparedRun) -> PreparedRun:
    """Lets a run that has not begun go on with another one; returns it.

    Args:
        parent: The other one.
        prepared: The run, whose recipe is that of the other one and one more part.

    Raises:
        InputError: If the outcome would not be that of one long run: the strategy cannot go on, or
            images or network are not those of the other one.
    """
    _check_strategy(prepared)
    known, found = parent.record.fingerprint, prepared.record.fingerprint
    for key in NETWORK_KEYS:
        if known.get(key) != found[key]:
            raise InputError(
                f"{key} must be as run {str(parent.folder)!r} had them, {known.get(key)!r}, got "
                f"{found[key]!r}"
            )
    _check_images(parent, prepared.source)
    prepared.record.parent = parent.note()
    return prepared


def _check_strategy(prepared: PreparedRun) -> None:
    name, strategy = prepared.record.strategy, prepared.strategy
    if not strategy.resumes:
        raise InputError(
            f"strategy {name!r} must keep all that it learns in its checkpoints to be continued, "
            "but it keeps something that they do not hold"
        )
    # A method whose `restore` is its own takes something from the images of before.
    takes_images = type(strategy).restore is not AdapterStrategy.restore
    if prepared.source.num_learned and (strategy.trains_on_all_data or takes_images):
        raise InputError(
            f"strategy {name!r} must have the images of all experiences to be continued, since it "
            "trains on some of them again, but those of before are no longer there"
        )


def _check_images(parent: Parent, source: ImageSource) -> None:
    before = source.before if isinstance(source, JoinedSource) else source
    if isinstance(before, LearnedSource):
        return
    earlier, known = RunConfig.parse(parent.record.config), parent.record.fingerprint
    found = fingerprint_of_images(before, earlier, plan_stream(before, earlier))
    if found != {key: value for key, value in known.items() if key not in NETWORK_KEYS}:
        raise InputError(
            f"images in {earlier.source!r} must be those that run {str(parent.folder)!r} learned "
            "from, but they have changed; put them back, or give --old-test, a folder of test "
            f"images or {NO_OLD_TEST!r}"
        )
