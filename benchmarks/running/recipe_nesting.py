"""Between a recipe as it is written, flat, and its parts, each a model of its own."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from cl_adapters.benchmarks.running.recipe_parts import (
    PART_KEYS,
    PARTS,
    PIXELS,
    SCENARIOS,
    PlainPixels,
    TaskFree,
)
from cl_adapters.benchmarks.streams.dataset_names import data_sets_of
from cl_adapters.errors import InputError

__all__ = ["SHIFT_SUFFIX", "flattened", "in_one_sentence", "nested"]

SHIFT_SUFFIX: Final = "-shift"
# A recipe leaves out the scenario and the pipeline that there were before there was a choice, so
# that it keeps its digest.
_UNSAID: Final = (("scenario", "class"), ("pipeline", "plain"))


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns flat values with those of each part below its name.

    Raises:
        InputError: If a key goes with another scenario, pipeline or kind of stream.
    """
    flat = _with_data_sets(_with_scenario(values))
    _refuse_keys_of_other_scenarios(flat)
    _refuse_keys_without_task_free(flat)
    _refuse_keys_of_plain_pixels(flat)
    found: dict[str, Any] = {
        "scenario_keys": _part(flat, "scenario", SCENARIOS, "class"),
        "boundaries": _own(flat, TaskFree) if flat.get("task_free") is not None else None,
        "pixels": _part(flat, "pipeline", PIXELS, "plain"),
    }
    taken = {name for names in PART_KEYS.values() for name in names}
    return {**{name: value for name, value in flat.items() if name not in taken}, **found}


def flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a recipe without parts, and without a choice that goes unsaid."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update((value or {}) if name in PARTS else {name: value})
    unsaid = {name for name, value in _UNSAID if flat.get(name) == value}
    return {name: value for name, value in flat.items() if name not in unsaid}


def in_one_sentence(error: ValidationError) -> str:
    """Returns what is wrong with a recipe: the key, the rule and the value."""
    first = error.errors()[0]
    context = first.get("ctx", {})
    if isinstance(context.get("error"), InputError):  # a rule between keys says itself which
        return str(context["error"])
    if first["type"].startswith("union_tag"):  # no model of that name: the choice itself is wrong
        key = context["discriminator"].strip("'")
        *some, last = _expected(key)
        return (
            f"recipe key `{key}`: Input should be {', '.join(some)} or {last}, "
            f"got {first['input'].get(key)!r}"
        )
    place = ".".join(map(str, _place(first["loc"])))
    return f"recipe key `{place}`: {first['msg']}, got {first['input']!r}"


def _expected(choice: str) -> list[str]:
    return [repr(name) for name in (SCENARIOS if choice == "scenario" else PIXELS)]


def _place(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    if not loc or loc[0] not in PARTS:
        return loc
    return loc[1:] if loc[0] == "boundaries" else loc[2:]  # the part, and which of its models


def _part(
    flat: Mapping[str, Any], choice: str, kinds: Mapping[str, type[BaseModel]], default: str
) -> dict[str, Any]:
    chosen = flat.get(choice, default)
    kind = kinds.get(chosen) if isinstance(chosen, str) else None
    return {**(_own(flat, kind) if kind else {}), choice: chosen}


def _own(flat: Mapping[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    return {name: flat[name] for name in kind.model_fields if name in flat}


def _with_scenario(values: Mapping[str, Any]) -> dict[str, Any]:
    # `digits-shift` is short for the stream `digits` with the scenario `shift`.
    stream = values.get("stream")
    if not isinstance(stream, str) or not stream.endswith(SHIFT_SUFFIX):
        return dict(values)
    scenario = values.get("scenario", "shift")
    if scenario != "shift":
        raise InputError(f"scenario of stream {stream!r} must be 'shift', got {scenario!r}")
    return {**values, "stream": stream.removesuffix(SHIFT_SUFFIX), "scenario": scenario}


def _with_data_sets(values: Mapping[str, Any]) -> dict[str, Any]:
    # `data = "a.parquet,b/"` is short for a table each.
    if values.get("scenario") != "datasets":
        return dict(values)
    data, tables = values.get("data"), values.get("datasets")
    for name in ("stream", "data") if tables is not None else ("stream",):
        if values.get(name) is not None:
            raise InputError(
                f"recipe key `{name}` must not go with scenario 'datasets', whose data sets say "
                f"where their images are, got {values[name]!r}"
            )
    if tables is None:
        if not isinstance(data, str):
            raise InputError(
                "scenario 'datasets' must be given its data sets, as --data a.parquet,b/ or as "
                f"tables [[datasets]] of a recipe, got {data!r}"
            )
        tables = data_sets_of(data)
    others = {name: value for name, value in values.items() if name not in ("data", "stream")}
    return {**others, "datasets": tables}


def _refuse_keys_of_other_scenarios(flat: Mapping[str, Any]) -> None:
    scenario = flat.get("scenario", "class")
    if not isinstance(scenario, str) or scenario not in SCENARIOS:
        return  # which the model says
    for name in PART_KEYS["scenario_keys"]:
        if flat.get(name) is not None and name not in SCENARIOS[scenario].model_fields:
            first, *others = (each for each, kind in SCENARIOS.items() if name in kind.model_fields)
            also = f" (or {', '.join(map(repr, others))})" if others else ""
            raise InputError(
                f"recipe key `{name}` must go with scenario {first!r}, got {scenario!r}{also}"
            )


def _refuse_keys_without_task_free(flat: Mapping[str, Any]) -> None:
    for name in TaskFree.model_fields:
        if flat.get("task_free") is None and flat.get(name) is not None:
            raise InputError(
                f"recipe key `{name}` must go with key `task_free`, got {flat[name]!r} alone"
            )


def _refuse_keys_of_plain_pixels(flat: Mapping[str, Any]) -> None:
    pipeline = flat.get("pipeline", "plain")
    for name in PlainPixels.model_fields:
        if name != "pipeline" and pipeline != "plain" and flat.get(name) is not None:
            raise InputError(f"recipe key `{name}` must go with pipeline 'plain', got {pipeline!r}")
