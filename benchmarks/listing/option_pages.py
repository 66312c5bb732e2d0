"""The tables of options that the pages of methods hold, made from the methods' config classes."""

import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.benchmarks.running.recipe_keys import rule_in_words
from cl_adapters.strategies import STRATEGY_NAMES

__all__ = ["fill_options", "option_table"]

_MARKED: Final = re.compile(r"(<!-- options:([\w:]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill_options(page: str) -> str:
    """Returns a page with every table of options as the code has it.

    Args:
        page: Text in which each table stands between `<!-- options:NAME -->` and `<!-- end -->`.

    Raises:
        InputError: If there is no strategy of a name.
    """
    return _MARKED.sub(lambda found: f"{found[1]}\n{option_table(found[2])}\n{found[3]}", page)


def option_table(name: str) -> str:
    """Returns the options of a strategy as Markdown.

    A column says what `--fidelity official` sets, where it sets any.

    Args:
        name: Name of a strategy.

    Raises:
        InputError: If there is no strategy of that name.
    """
    kind = STRATEGY_NAMES.find(name).config_class
    usual, official = dict(_options(kind())), dict(_options(kind.official()))
    changes = {key for key, (value, _) in official.items() if value != usual[key][0]}
    rows = [["option", "default", *(["official"] if changes else []), "values", "meaning"]]
    for key, (value, field) in usual.items():
        theirs = _shown(official[key][0]) if key in changes else ""
        cells = [f"`{key}`", _shown(value), *([theirs] if changes else [])]
        rows.append([*cells, _values(field), field.description or ""])
    return markdown_table(rows)


def _options(config: BaseModel, before: str = "") -> Iterator[tuple[str, tuple[Any, FieldInfo]]]:
    """Yields each option by the name that `--set` takes, with its value; groups are opened."""
    for key, field in type(config).model_fields.items():
        value = getattr(config, key)
        if isinstance(value, BaseModel):
            yield from _options(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", (value, field)


def _shown(value: object) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _values(field: FieldInfo) -> str:
    """Returns which values an option may have, in words; empty if any of its type."""
    kinds = [field.annotation]
    if get_origin(field.annotation) in {Union, UnionType}:
        kinds = [each for each in get_args(field.annotation) if each is not NoneType]
    words = [
        f"`{word}`" for each in kinds if get_origin(each) is Literal for word in get_args(each)
    ]
    if bool in kinds:
        words = ["`true`", "`false`"]
    if words and {int, float} & set(kinds):
        words = [f"{', '.join(words)} or a number"]
    return ", ".join(filter(None, [*words, rule_in_words(field)]))
