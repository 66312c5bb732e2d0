"""Names to objects: built-in tables, installed packages and a user's own files, by one rule.

A name is looked for in this order:

    lae                      in the built-in table
    family:Name              in a family of built-in names that share a prefix, if there is one
    my_method.py:MyMethod    in a file, seen from the working directory
    package.module:Name      in a module that Python can import
    knn                      among the entry points of installed packages (`cl_adapters.strategies`)

Only what is named is imported, of the built-in table too. `entries`, for listings, imports
everything, and says of each plugin that is broken what is wrong with it.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from types import ModuleType
from typing import Final, Generic, TypeVar

from cl_adapters.errors import InputError, unknown_name
from cl_adapters.plugins.digests import source_digest
from cl_adapters.plugins.references import (
    SUFFIX,
    check_call,
    file_digest,
    file_of,
    in_words,
    is_reference,
    label,
    load_module,
    note_plugin,
)
from cl_adapters.plugins.tables import LazyTable, load

__all__ = ["Entry", "Family", "Registry", "check_call", "derived_from", "is_reference", "label"]

T = TypeVar("T")

_NOTHING: Final = object()
_GIVEN: Final[dict[tuple[str, str], object]] = {}  # by reference and digest: handed over in Python


def derived_from(kind: type[T]) -> Callable[[object], type[T]]:
    """Returns what lets classes through that derive from one and have all its methods.

    Args:
        kind: The class.
    """

    def accept(value: object) -> type[T]:
        if isinstance(value, type) and issubclass(value, kind) and not isabstract(value):
            return value
        name = kind.__name__
        raise InputError(f"must be a class derived from {name} with all its methods, got {value!r}")

    return accept


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One name of a listing.

    Attributes:
        name: What the user types.
        origin: `built in`, or the package and its version.
        value: What the name stands for; None if that cannot be loaded.
        problem: Why not.
    """

    name: str
    origin: str
    value: T | None
    problem: str = ""


@dataclass(frozen=True)
class Family:
    """Built-in names of the form `prefix:Name`, which are known only when they are asked for.

    Attributes:
        prefix: What stands before the colon.
        names: `module:function` that returns all of them.
        find: `module:function` that returns what one of them stands for, or raises `InputError`.
    """

    prefix: str
    names: str
    find: str

    def __contains__(self, name: str) -> bool:
        return name.startswith(f"{self.prefix}:")


class Registry(Generic[T]):
    """What one kind of name stands for.

    Args:
        kind: What a name is called in messages, such as `strategy`.
        group: Group of entry points of installed packages.
        built_in: The table of this package: objects, or `module:Name` of what `find` imports.
        accept: Returns what a plugin's object means, or raises `InputError` with the rule that it
            breaks, as in "must be a class, got ...".
        family: Names with a prefix that are built in, though they have the form of a reference.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        built_in: Mapping[str, str | T],
        accept: Callable[[object], T],
        *,
        family: Family | None = None,
    ) -> None:
        self.kind, self.group, self._accept, self._family = kind, group, accept, family
        self.built_in: LazyTable[T] = LazyTable(built_in)

    def __contains__(self, name: object) -> bool:
        """Says whether a name can stand for something; nothing is imported."""
        text = str(name)
        return self.is_built_in(text) or is_reference(text) or text in self._installed()

    def is_built_in(self, name: str) -> bool:
        """Says whether a name is of this package's table or family; nothing is imported."""
        return name in self.built_in or (self._family is not None and name in self._family)

    def names(self) -> list[str]:
        """Returns the built-in names, those of the family last."""
        return [*self.built_in, *(load(self._family.names)() if self._family else [])]

    def find(self, name: str) -> T:
        """Returns what a name stands for.

        Raises:
            InputError: If it stands for nothing, or for something that is broken or of another
                kind; near names are suggested.
        """
        if name in self.built_in:
            return self.built_in[name]
        if self._family is not None and name in self._family:
            found: T = load(self._family.find)(name)
            return found
        if is_reference(name):
            return self._accepted(name, self._referred(name))
        return self._accepted(name, self._loaded(name, self._point(name)))

    def reference(self, value: object) -> str:
        """Returns the name under which `find` gives an object back, in this process and later.

        Raises:
            InputError: If the object does not stand at the top level of a file.
        """
        if isinstance(value, str):
            return value
        known = self.built_in.name_of(value) or self._name_in_family(value)
        if known is not None:
            return known
        self._accepted(repr(value), value)
        name = str(getattr(value, "__qualname__", ""))
        file = file_of(value)
        if file is None or not name.isidentifier():
            raise InputError(
                f"{self.kind} {name or value!r} must stand at the top level of a file, so that the "
                "run can be repeated; save it into one"
            )
        reference = f"{file}:{name}"
        _GIVEN[reference, file_digest(file)] = value
        return reference

    def entries(self) -> Iterator[Entry[T]]:
        """Yields all names, the built-in first; what is broken has a `problem` and no value."""
        for name in self.names():
            yield Entry(name, "built in", self.find(name))
        yield from self.plugins()

    def plugins(self) -> Iterator[Entry[T]]:
        """Yields the names of installed packages; what is broken has a `problem` and no value."""
        for name, points in sorted(self._installed().items()):
            owner = ", ".join(sorted(map(_owner, points)))
            if name in self.built_in:
                yield Entry(name, owner, None, "the name is taken by a built-in one")
                continue
            try:
                yield Entry(name, owner, self.find(name))
            except InputError as error:
                yield Entry(name, owner, None, str(error))

    def version(self, name: str) -> tuple[str, str] | None:
        """Returns package and version of an installed plugin; None for any other name."""
        points = [] if name in self.built_in else self._installed().get(name, [])
        dist = points[0].dist if points else None
        return None if dist is None else (dist.name, dist.version)

    def _name_in_family(self, value: object) -> str | None:
        if self._family is None or not isinstance(value, type):
            return None
        # A class of the family was made by it: one from elsewhere need not load it.
        if value.__module__ != self._family.find.partition(":")[0]:
            return None
        find = load(self._family.find)
        return next((name for name in load(self._family.names)() if find(name) is value), None)

    def _installed(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            if all(point.value != other.value for other in found.get(point.name, [])):
                found.setdefault(point.name, []).append(point)
        return found

    def _point(self, name: str) -> EntryPoint:
        points = self._installed().get(name, [])
        if len(points) == 1:
            return points[0]
        if points:
            owners = ", ".join(sorted(map(_owner, points)))
            raise InputError(f"{self.kind} {name!r} must come from one package, got {owners}")
        if name.endswith(SUFFIX):
            raise InputError(f"{self.kind} in a file must have the form file.py:Name, got {name!r}")
        raise unknown_name(self.kind, name, [*self.names(), *self._installed()])

    def _loaded(self, name: str, point: EntryPoint) -> object:
        try:
            value = point.load()
            note_plugin(getattr(sys.modules.get(point.module), "__file__", None))
        except (Exception, SystemExit) as error:
            raise InputError(
                f"{self.kind} {name!r} of {_owner(point)} must be importable, got {in_words(error)}"
            ) from error
        return value

    def _referred(self, reference: str) -> object:
        where, _, name = reference.rpartition(":")
        try:
            known = _GIVEN.get((reference, source_digest(reference)))
            module = None if known is not None else load_module(where)
            value = getattr(module, name, _NOTHING)  # a module may answer by code of its own
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(
                f"{self.kind} {reference!r} must be importable, got {in_words(error)}"
            ) from error
        if module is None:
            return known
        if value is _NOTHING:
            fitting = [each for each, value in vars(module).items() if self._fits(module, value)]
            raise unknown_name(f"{self.kind} of {where}", name, fitting)
        return value

    def _fits(self, module: ModuleType, value: object) -> bool:
        try:
            if getattr(value, "__module__", None) != module.__name__:
                return False
            self._accept(value)
        except Exception:  # noqa: BLE001 - whatever a stranger's object raises when it is asked
            return False
        return True

    def _accepted(self, name: str, value: object) -> T:
        try:
            return self._accept(value)
        except InputError as error:
            raise InputError(f"{self.kind} {name!r} {error}") from error
        except Exception as error:
            raise InputError(
                f"{self.kind} {name!r} must be usable, got {in_words(error)}"
            ) from error


def _owner(point: EntryPoint) -> str:
    return "an unnamed package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
