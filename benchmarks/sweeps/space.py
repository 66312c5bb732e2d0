"""What `cl-adapters tune` searches: options of a strategy, each with its choices or its range.

The config class says what an option may be; from its type, its rules and the value it has now comes
a range to start from (`derive`). Users name options and ranges of their own:

    lr                   the range that follows from the config class
    lr=0.001:0.1         low to high, both included; on a log scale where high is ten times low
    lr=0.001:0.1:linear  the same, on the scale that is said: `log` or `linear`
    peft=adapter,lora     choices
"""

import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path
from random import Random
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cl_adapters.benchmarks.running.earlier_options import current_option
from cl_adapters.errors import InputError, unknown_name
from cl_adapters.paths import read_text, user_path
from cl_adapters.strategies.core.config import StrategyConfig

__all__ = ["Space", "derive", "nested", "read_space", "space_table"]

Space = dict[str, BaseDistribution]

_WIDE: Final = 10.0  # a range as wide as this is searched by orders of magnitude
_FACTOR: Final = {float: 10.0, int: 4.0}  # either side of the value that an option has now
_INSIDE: Final = 0.01  # share of a range that an excluded bound costs
_TRIES: Final = 64


def read_space(options: StrategyConfig, settings: Sequence[str]) -> Space:
    """Returns what is searched.

    Args:
        options: The options as they are without a search.
        settings: Texts as above, or the path of a TOML file with such keys; none takes every
            option from whose rules a range follows and which has a meaning beside the others.

    Raises:
        InputError: If an option is unknown, a text is neither choices nor a range, or the strategy
            refuses a value.
    """
    asked = _asked(settings)
    space: Space = {}
    known = type(options).model_fields
    for given, text in asked.items() if asked else dict.fromkeys(_derivable(options)).items():
        name = current_option(given, known)
        field, value = _find(options, name)
        found = derive(field, value) if text is None else _given(name, field, text)
        if found is None:
            raise InputError(
                f"--space {name} must be given choices or a range, {name}=a,b or {name}=low:high, "
                "since none follows from its rules"
            )
        space[name] = found
    if not space:
        raise InputError("--space must name an option to search, and none has rules to follow")
    if asked:
        return {name: _checked(options, name, space) for name in space}
    fitting: Space = {}
    for name in space:
        # Nobody asked for one that has no meaning beside the options that stay: it stays too.
        with suppress(InputError):
            fitting[name] = _checked(options, name, space)
    return fitting


def _asked(settings: Sequence[str]) -> dict[str, str | None]:
    asked: dict[str, str | None] = {}
    for text in settings:
        if text.endswith(".toml"):
            asked.update(_from_file(user_path(text)))
        elif "=" in text:
            name, _, value = text.partition("=")
            asked[name.strip()] = value.strip()
        else:
            asked.update(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    return asked


def _from_file(path: Path) -> dict[str, str | None]:
    # A list holds choices, a text is what the command line takes, `true` asks for the own range.
    try:
        values = tomllib.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise InputError(
            f"--space {str(path)!r} must be a readable TOML file, got: {error}"
        ) from error
    asked: dict[str, str | None] = {}
    for name, value in values.items():
        if isinstance(value, list):
            asked[name] = ",".join(map(_plain, value))
        elif value is True or isinstance(value, str):
            asked[name] = None if value is True else str(value)
        else:
            raise InputError(
                f"key `{name}` of {str(path)!r} must be a list of choices, a text 'low:high' or "
                f"true, got {value!r}"
            )
    return asked


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _derivable(options: StrategyConfig) -> list[str]:
    fields = type(options).model_fields
    return [
        name
        for name, field in fields.items()
        if not _is_resource(field)
        and _has_meaning(field, options)
        and derive(field, getattr(options, name)) is not None
    ]


def _is_resource(field: FieldInfo) -> bool:
    # What a field says of itself: it changes what a run costs, not what it computes.
    return bool(_said(field).get("resource"))


def _has_meaning(field: FieldInfo, options: StrategyConfig) -> bool:
    # What a field says of itself: values of other options beside which alone it does something.
    beside = _said(field).get("beside", {})
    return all(getattr(options, name) == value for name, value in beside.items())


def _said(field: FieldInfo) -> Mapping[str, Any]:
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def _find(options: StrategyConfig, name: str) -> tuple[FieldInfo, object]:
    """Returns the field of an option, `group.part` being one of a group, and its value."""
    holder: BaseModel = options
    *groups, last = name.split(".")
    for group in groups:
        inner = getattr(holder, group, None) if group in type(holder).model_fields else None
        if not isinstance(inner, BaseModel):
            raise unknown_name("option", name, type(options).model_fields)
        holder = inner
    if last not in type(holder).model_fields:
        raise unknown_name("option", name, type(holder).model_fields)
    return type(holder).model_fields[last], getattr(holder, last)


def derive(field: FieldInfo, value: object) -> BaseDistribution | None:
    """Returns the range that follows from an option's type, rules and present value, if one does.

    Booleans and literals give their values. A number that lies between two bounds, and not near
    the lower one, is searched evenly over all that is allowed; any other by orders of magnitude,
    ten times (whole numbers four times) either side of its value.

    Example:
        >>> from cl_adapters.strategies.lae import LAEConfig
        >>> derive(LAEConfig.model_fields["lr"], 0.01)
        FloatDistribution(high=0.1, log=True, low=0.001, step=None)
        >>> derive(LAEConfig.model_fields["peft"], "adapter") is None
        True
    """
    if field.annotation is bool:
        return CategoricalDistribution([False, True])
    if get_origin(field.annotation) is Literal:
        return CategoricalDistribution(list(get_args(field.annotation)))
    if isinstance(value, int | float) and field.annotation in (int, float):
        return _around(value, field)
    return None


def _around(value: float, field: FieldInfo) -> BaseDistribution | None:
    whole = field.annotation is int
    rules = {type(rule): rule for rule in field.metadata}
    at_least, above, at_most, below = map(rules.get, (Ge, Gt, Le, Lt))
    lower = at_least.ge if at_least else above.gt + whole if above else None
    upper = at_most.le if at_most else below.lt - whole if below else None
    if lower is not None and upper is not None and value - lower >= (upper - lower) / _WIDE:
        # An excluded bound of fractions is not reached.
        rim = 0 if whole else _INSIDE * (upper - lower)
        ends = lower + rim * bool(above), upper - rim * bool(below)
        return _range(*ends, whole=whole, log=False)
    factor = _FACTOR[int if whole else float]
    if whole and lower == 0 and value > 0:  # zero is no order of magnitude
        return _range(0, value * factor, whole=True, log=False)
    if value <= 0:
        return None
    low, high = value / factor, value * factor
    if lower is not None and low <= lower:
        low = lower if at_least or whole else (lower + value) / 2
    if upper is not None and high >= upper:
        high = upper if at_most or whole else (upper + value) / 2
    return _range(max(low, 1) if whole else low, high, whole=whole, log=True)


def _range(low: float, high: float, *, whole: bool, log: bool) -> BaseDistribution:
    if whole:
        return IntDistribution(round(low), round(high), log=log)
    return FloatDistribution(float(f"{low:.6g}"), float(f"{high:.6g}"), log=log)


def _given(name: str, field: FieldInfo, text: str) -> BaseDistribution:
    if ":" not in text or ".py:" in text:
        choices = [each.strip() for each in text.split(",") if each.strip()]
        if not choices:
            raise InputError(f"--space {name} must be given at least one choice, got {text!r}")
        return CategoricalDistribution(list(dict.fromkeys(choices)))
    kinds = _kinds(field.annotation)
    if not {int, float} & kinds:
        raise InputError(f"--space {name} must be choices such as a,b, got the range {text!r}")
    ends, scale = _span(name, text)
    whole = float not in kinds
    if whole and not all(end.is_integer() for end in ends):
        raise InputError(f"--space {name} must have whole numbers as ends, got {text!r}")
    low, high = ends
    log = scale == "log" or (scale == "" and low > 0 and high >= _WIDE * low)
    return _range(low, high, whole=whole, log=log)


def _span(name: str, text: str) -> tuple[tuple[float, float], str]:
    """Returns the ends of a range, and its scale if one is said."""
    parts = [each.strip() for each in text.split(":")]
    try:
        low, high = map(float, parts[:2])
    except ValueError as error:
        raise InputError(f"--space {name} must be low:high with numbers, got {text!r}") from error
    scale = ":".join(parts[2:])
    if scale not in ("", "log", "linear"):
        raise unknown_name("scale", scale, ("log", "linear"))
    if not (low < high and isfinite(low) and isfinite(high)):
        raise InputError(f"--space {name} must be a range from low to high, got {text!r}")
    if scale == "log" and low <= 0:
        raise InputError(f"--space {name} must begin above 0 to be logarithmic, got {text!r}")
    return (low, high), scale


def _kinds(annotation: Any) -> set[Any]:  # noqa: ANN401 - types are no type
    if get_origin(annotation) in (Union, UnionType):
        return {kind for each in get_args(annotation) for kind in _kinds(each)} - {NoneType}
    return {annotation}


def _ends(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return [distribution.low, distribution.high]
    raise TypeError(f"distribution must be of numbers or choices, got {distribution!r}")


def _checked(options: StrategyConfig, name: str, space: Space) -> BaseDistribution:
    """Returns a distribution whose ends or choices the strategy takes, choices with their type.

    Raises:
        InputError: If it refuses one whatever the other options that are searched are.
    """
    typed: list[Any] = []
    for value in _ends(space[name]):
        _, found = _find(_taken(options, name, value, space), name)
        typed.append(found)
    if isinstance(space[name], CategoricalDistribution):
        return CategoricalDistribution(typed)
    return space[name]


def _taken(options: StrategyConfig, name: str, value: object, space: Space) -> StrategyConfig:
    # An end may need others to be elsewhere than now: few epochs go with fewer frozen ones.
    source = Random(0)
    refusal: InputError | None = None
    for attempt in range(_TRIES):
        chosen = {
            other: source.choice(_ends(each))
            for other, each in space.items()
            if other != name and attempt
        }
        try:
            return options.override(nested({**chosen, name: value}))
        except InputError as error:
            refusal = refusal or error
    raise InputError(f"--space {name}: {refusal}") from refusal


def nested(values: Mapping[str, object]) -> dict[str, Any]:
    """Returns options with those of a group in a table of their own.

    Example:
        >>> nested({"lr": 0.1, "budget.adapters": 3})
        {'lr': 0.1, 'budget': {'adapters': 3}}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        holder = found
        for group in groups:
            holder = holder.setdefault(group, {})
        holder[last] = value
    return found


def space_table(space: Space, options: StrategyConfig) -> list[list[str]]:
    """Returns a row an option, the header first."""
    rows = [["option", "now", "searched", "scale"]]
    for name, each in space.items():
        now = str(_find(options, name)[1])
        if isinstance(each, CategoricalDistribution):
            rows.append([name, now, ", ".join(map(str, each.choices)), "choices"])
        else:
            low, high = _ends(each)
            scale = "log" if getattr(each, "log", False) else "linear"
            rows.append([name, now, f"{low:g} to {high:g}", scale])
    return rows
