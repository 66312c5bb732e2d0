"""What can be said of each key of a recipe, read from its models: for options, pages, messages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import NoneType, UnionType
from typing import Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.benchmarks.running.recipe import RECIPE_KEYS, RunConfig
from cl_adapters.benchmarks.running.recipe_groups import Group
from cl_adapters.benchmarks.running.recipe_parts import (
    CHOICES,
    PIXELS,
    SCENARIOS,
    Part,
    PlainPixels,
    TaskFree,
)

__all__ = ["RecipeKey", "recipe_keys", "recipe_page", "rule_in_words"]

# Where keys apply that not every recipe has: a name for messages, and the model.
_PLACES: Final[Mapping[str, type[Part]]] = {
    **SCENARIOS,
    "task-free": TaskFree,
    "plain": PlainPixels,
}
_CHOSEN: Final = {"scenario": ("class", SCENARIOS), "pipeline": ("plain", PIXELS)}
_HEAD: Final = """# The recipe

Every key of a recipe: an option of `cl-adapters run` (`--class-order` for `class_order`), a key of
a TOML file for `--recipe`, a key of `config` in `run.json`, and an axis of a sweep. A key that goes
with a scenario that is not the recipe's is refused. The headings are those of `run --help`.
`python docs/generate.py` makes this page from the code."""


@dataclass(frozen=True)
class RecipeKey:
    """A key of a recipe.

    Attributes:
        name: As it is written.
        kind: Type of its values; `dict` for a table.
        group: Heading under which it stands.
        description: What it means.
        rule: Which values it may have, in words; empty if any.
        choices: The values that it may have, if they are few.
        defaults: Its default by the place where the key applies: a scenario, `task-free` or
            `plain`; under the empty text if every recipe has it.
        is_required: Whether there is no default.
    """

    name: str
    kind: type
    group: Group
    description: str
    rule: str = ""
    choices: tuple[str, ...] = ()
    defaults: Mapping[str, object] = field(default_factory=dict)
    is_required: bool = False

    def help(self) -> str:
        """Returns where the key applies, what it means and its default, in one text."""
        where = ", ".join(place for place in self.defaults if place)
        default = self.default()
        said = f" (default: {default})" if default and self.kind is not bool else ""
        text = f"{where}: {self.description}" if where else _capitalised(self.description)
        return f"{text}{said}."

    def default(self) -> str:
        """Returns the default in words, by place where it differs; empty if there is none."""
        shown = {place: _shown(value) for place, value in self.defaults.items()}
        values = {place: value for place, value in shown.items() if value} or shown
        if len(set(values.values())) == 1:
            return next(iter(values.values()))
        return ", ".join(f"{value} with {place}" for place, value in values.items())


@cache
def recipe_keys() -> dict[str, RecipeKey]:
    """Returns every key of a recipe by name, in the order in which a recipe is read."""
    return {name: _key(name) for name in RECIPE_KEYS}


def recipe_page() -> str:
    """Returns the reference page of the recipe as Markdown."""
    parts = [_HEAD]
    keys = recipe_keys().values()
    for group in dict.fromkeys(sorted((key.group for key in keys), key=list(Group).index)):
        of_all = [key for key in keys if key.group is group and "" in key.defaults]
        parts += [f"## {group}", *([_table(of_all, "")] if of_all else [])]
        for place, kind in _PLACES.items():
            if kind.group is group:
                own = [key for key in keys if place in key.defaults]
                parts += [f"### {_title(place)}", (kind.__doc__ or "").strip(), _table(own, place)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _title(place: str) -> str:
    if place in SCENARIOS:
        return f'With scenario = "{place}"'
    return "With `task_free`" if place == "task-free" else 'With pipeline = "plain"'


def _table(keys: list[RecipeKey], place: str) -> str:
    rows = [["key", "type", "default", "meaning", "rule"]]
    for key in keys:
        default = "needed" if key.is_required else _shown(key.defaults[place])
        rows.append([f"`{key.name}`", key.kind.__name__, default, key.description, key.rule])
    return markdown_table(rows)


def _key(name: str) -> RecipeKey:
    if name in _CHOSEN:
        default, kinds = _CHOSEN[name]
        rule, choices = f"one of {', '.join(kinds)}", tuple(kinds)
        group = kinds[default].group
        return RecipeKey(name, str, group, CHOICES[name], rule, choices, {"": default})
    if name in RunConfig.model_fields:
        field = RunConfig.model_fields[name]
        (group,) = (each for each in field.metadata if isinstance(each, Group))
        return _described(name, group, {"": field})
    kinds = {place: kind for place, kind in _PLACES.items() if name in kind.model_fields}
    (group,) = {kind.group for kind in kinds.values()}
    return _described(name, group, {at: kind.model_fields[name] for at, kind in kinds.items()})


def _described(name: str, group: Group, places: Mapping[str, FieldInfo]) -> RecipeKey:
    first = next(iter(places.values()))
    kind, choices = _kind(first.annotation)
    return RecipeKey(
        name,
        kind,
        group,
        "; ".join(dict.fromkeys(each.description or "" for each in places.values())),
        f"one of {', '.join(choices)}" if choices else rule_in_words(first),
        choices,
        {
            place: None if each.is_required() else each.get_default(call_default_factory=True)
            for place, each in places.items()
        },
        is_required=first.is_required() and "" in places,
    )


def _kind(annotation: object) -> tuple[type, tuple[str, ...]]:
    if get_origin(annotation) in {Union, UnionType}:
        annotation = next(each for each in get_args(annotation) if each is not NoneType)
    if get_origin(annotation) is Literal:
        return str, get_args(annotation)
    kind = get_origin(annotation) or annotation
    return (kind if isinstance(kind, type) else str), ()


def rule_in_words(field: FieldInfo) -> str:
    """Returns the limits of a field's values in words; empty if it has none."""
    words = []
    for limit in field.metadata:
        match limit:
            case Ge():
                words.append(f"at least {limit.ge}")
            case Gt():
                words.append(f"above {limit.gt}")
            case Le():
                words.append(f"at most {limit.le}")
            case Lt():
                words.append(f"below {limit.lt}")
    return " and ".join(words)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _shown(value: object) -> str:
    if value is None or value in ({}, []):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
