"""Tables of names whose objects are imported when they are asked for."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

__all__ = ["LazyTable", "load"]

T = TypeVar("T")


def load(reference: str) -> Any:  # noqa: ANN401 - whatever stands there
    """Imports what `package.module:Name` names.

    Example:
        >>> load("math:pi")
        3.141592653589793
    """
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


class LazyTable(Mapping[str, T], Generic[T]):
    """A table whose values may be texts `module:Name`: such a one is imported when looked up.

    Names can be listed, and looked for, without an import.

    Args:
        values: The objects, or where they stand.

    Example:
        >>> table = LazyTable({"pi": "math:pi"})
        >>> list(table), "e" in table, table["pi"]
        (['pi'], False, 3.141592653589793)
    """

    def __init__(self, values: Mapping[str, "str | T"]) -> None:
        self.places = dict(values)

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __getitem__(self, name: str) -> T:
        value = self.places[name]
        if isinstance(value, str):
            value = self.places[name] = cast("T", load(value))
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def name_of(self, value: object) -> str | None:
        """Returns the name of an object; nothing is imported."""
        place = f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', '')}"
        names = (name for name, known in self.places.items() if known is value or known == place)
        return next(names, None)
