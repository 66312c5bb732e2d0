"""Options of a command that are keys of the recipe: names, types and help are the recipe's."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from cl_adapters.benchmarks.running.recipe_keys import RecipeKey, recipe_keys

__all__ = ["COMMAND_KEYS", "takes_recipe_keys"]

# What a command has in another form, `--set` and `continue`, and what only a record says.
_NOT_ON_THE_COMMAND_LINE = ("options", "plugins", "continued", "datasets")
COMMAND_KEYS = tuple(name for name in recipe_keys() if name not in _NOT_ON_THE_COMMAND_LINE)


def takes_recipe_keys(
    names: Sequence[str], notes: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command an option for each key of the recipe; it gets those that were given.

    Args:
        names: The keys.
        notes: What the command adds to the help of a key.

    Returns:
        A decorator of a function whose first parameter takes the given keys as a mapping; its other
        parameters are options of the command's own.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def command(**values: Any) -> None:  # noqa: ANN401 - the types of the options
            given = {name: values.pop(name) for name in names}
            function({name: each for name, each in given.items() if each is not None}, **values)

        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        keys = recipe_keys()
        options = [_parameter(keys[name], (notes or {}).get(name, "")) for name in names]
        parameters = [*options, *own]
        made: Any = command  # a function whose signature is made takes attributes
        made.__signature__ = inspect.Signature(parameters)
        made.__annotations__ = {each.name: each.annotation for each in parameters}
        made.__name__, made.__doc__ = function.__name__, function.__doc__
        return command

    return decorate


def _parameter(key: RecipeKey, note: str) -> inspect.Parameter:
    flag = f"--{key.name.replace('_', '-')}"
    flags = f"{flag}/--no-{flag[2:]}" if key.kind is bool else flag
    option = typer.Option(
        flags,
        help=f"{key.help()}{note}",
        metavar=f"[{'|'.join(key.choices)}]" if key.choices else None,
        rich_help_panel=key.group,
    )
    # Without a default of its own: what is not given is left to the recipe.
    annotation = Annotated[key.kind | None, option]  # type: ignore[name-defined]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(key.name, keyword, default=None, annotation=annotation)
