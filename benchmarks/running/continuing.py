"""From a finished run to the recipe of one that goes on with it, and whether that can be."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.joining import JoinedSource, LearnedSource
from cl_adapters.benchmarks.running.fingerprint import fingerprint_of_images
from cl_adapters.benchmarks.running.parent import (
    NETWORK_KEYS,
    Parent,
    noted_parent,
    open_parent,
)
from cl_adapters.benchmarks.running.prepare import PreparedRun
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.recipe_parts import NO_OLD_TEST
from cl_adapters.benchmarks.running.scenarios import plan_stream
from cl_adapters.errors import InputError, listed
from cl_adapters.paths import user_path
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.pretrained import check_weights_are_there

__all__ = ["continued_config", "coverage_notes", "go_on_with", "to_go_on"]


def to_go_on(
    run: str | Path,
    data: str | Path,
    part: Mapping[str, Any],
    *,
    out: Path,
    weights: str | Path | None = None,
    restart: bool = False,
) -> tuple[Parent, RunConfig, list[str]]:
    """Returns the run to be continued, the recipe that does so, and what to tell its user.

    A run that has begun to go on with it needs it no more: it is found below `out` where the
    continued one is gone or no longer sound.

    Args:
        run: Directory of the run, or a folder with that one run in it.
        data: As for `continued_config`, and so are `part` and `weights`.
        part: Other keys of the part.
        out: Folder of all runs.
        weights: File of the frozen backbone.
        restart: Whether the new run is to begin again, for which the other one is needed.

    Raises:
        InputError: If the run cannot be continued and none has begun to, or a value breaks a rule.
    """
    try:
        parent = open_parent(run)
    except InputError:
        begun = None if restart else _begun(user_path(run), data, part, out)
        if begun is None:
            raise
        return (*begun, [])
    return (parent, *continued_config(parent, data, part, weights))


def _begun(
    run: Path, data: str | Path, part: Mapping[str, Any], out: Path
) -> tuple[Parent, RunConfig] | None:
    """Returns what a run below `out` holds of the one that it continues, and its recipe."""
    given = _given(data, part)
    for folder in find_runs([out]) if out.is_dir() else []:
        try:
            record, parent = RunRecord.read(folder), noted_parent(folder)
        except InputError:  # damaged: `list runs` says so
            continue
        parts = record.config.get("continued", [])
        if parent is None or not parts or user_path(parent.folder).resolve() != run.resolve():
            continue
        config = RunConfig.parse(record.config)
        # Without a word on old images, `none` is what stands for those that were gone.
        for each in (given, {"old_test": NO_OLD_TEST, **given}):
            if config == RunConfig.parse({**record.config, "continued": [*parts[:-1], each]}):
                return parent, config
    return None


def _given(data: str | Path, part: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a part as its recipe has it."""
    said = {name: value for name, value in part.items() if value is not None}
    old = {"old_test": str(said["old_test"])} if "old_test" in said else {}
    return {"data": str(data), **said, **old}


def continued_config(
    parent: Parent,
    data: str | Path,
    part: Mapping[str, Any],
    weights: str | Path | None = None,
) -> tuple[RunConfig, list[str]]:
    """Returns the recipe that learns one more part after all that a run has learned.

    Args:
        parent: The run.
        data: Where the images of the part are.
        part: Other keys of the part; those that are None are left out.
        weights: File of the frozen backbone where it no longer is where the run had it.

    Returns:
        The recipe; and what its user should know: which old images are no longer there.

    Raises:
        InputError: If a value breaks its rule, or the run's stream cannot go on.
    """
    given = _given(data, part)
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
    moved = _weights(parent, weights)
    return RunConfig.parse({**config, **moved, "continued": parts}), notes


def _weights(parent: Parent, given: str | Path | None) -> dict[str, str]:
    """Returns what a recipe says of weights that were moved."""
    if given is not None:
        return {"weights": str(given)}
    check_weights_are_there(parent.record.config.get("weights"), f"run {str(parent.folder)!r}")
    return {}


def coverage_notes(source: ImageSource) -> list[str]:
    """Returns a sentence where there are no test images of some classes that were learned before.

    Args:
        source: The images of a run that goes on with another one.
    """
    tested = set(source.test.targets.tolist())
    left = [name for label, name in enumerate(source.classes) if label not in tested]
    if not left:
        return []
    every = len(source.classes)
    over = f"{every - len(left)} of {every} classes"
    return [f"no test image of {listed(left)} is evaluated: accuracies are over {over}"]


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
    if not parent.is_noted:  # else the run has begun, and its own record says what it learned from
        _check_images(parent, prepared.source)
    _check_new_experiences(parent, prepared)
    prepared.record.parent = parent.note()
    _note_missing(parent, prepared)
    return prepared


def _note_missing(parent: Parent, prepared: PreparedRun) -> None:
    # Reports tell images that were gone from those that somebody left out.
    asked, before = prepared.config.continued[-1].old_test, parent.record.data.get("old_test")
    is_missing = asked == NO_OLD_TEST and bool(_missing(parent))
    if is_missing or (asked is None and before == "missing"):
        prepared.record.data["old_test"] = "missing"


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


def _check_new_experiences(parent: Parent, prepared: PreparedRun) -> None:
    # What a strategy refuses is known now: it must not leave behind a run that can never go on.
    done, benchmark = parent.record.experiences_done, prepared.benchmark()
    for experience in benchmark.train_stream[done:]:
        prepared.strategy.check_experience(experience.dataset)


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
