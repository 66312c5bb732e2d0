"""Names to objects: built-in tables, installed packages and a user's own files, by one rule.

A name is looked for in this order:

    lae                      in the built-in table
    my_method.py:MyMethod    in a file, seen from the working directory
    package.module:Name      in a module that Python can import
    ranpac                   among the entry points of installed packages (`cl_adapters.strategies`)

Only what is named is imported. `entries`, for listings, imports every entry point, and says of each
that is broken what is wrong with it.
"""

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Generic, TypeVar

from cl_adapters.errors import InputError, unknown_name

__all__ = [
    "Entry",
    "Registry",
    "check_call",
    "is_reference",
    "label",
    "source_digest",
    "source_digests",
]

T = TypeVar("T")

_SUFFIX: Final = ".py"
# What `avalanche:Naive` begins with: built in, though it has the form of a reference.
_BUILT_IN: Final = "avalanche"
_GIVEN: dict[tuple[str, str], object] = {}  # by reference and digest: what Python code handed over


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


class Registry(Generic[T]):
    """What one kind of name stands for.

    Args:
        kind: What a name is called in messages, such as `strategy`.
        group: Group of entry points of installed packages.
        built_in: The table of this package.
        accept: Returns what a plugin's object means, or raises `InputError` with the rule that it
            breaks, as in "must be a class, got ...".
    """

    def __init__(
        self,
        kind: str,
        group: str,
        built_in: Mapping[str, T],
        accept: Callable[[object], T],
    ) -> None:
        self.kind, self.group, self.built_in, self._accept = kind, group, built_in, accept

    def __contains__(self, name: object) -> bool:
        """Says whether a name stands for something; nothing is imported."""
        text = str(name)
        return text in self.built_in or is_reference(text) or text in self._installed()

    def find(self, name: str) -> T:
        """Returns what a name stands for.

        Raises:
            InputError: If it stands for nothing, or for something that is broken or of another
                kind; near names are suggested.
        """
        if name in self.built_in:
            return self.built_in[name]
        if is_reference(name):
            return self._accepted(name, self._referred(name))
        points = self._installed().get(name, [])
        if not points:
            if name.endswith(_SUFFIX):
                raise InputError(
                    f"{self.kind} in a file must have the form file.py:Name, got {name!r}"
                )
            raise unknown_name(self.kind, name, [*self.built_in, *self._installed()])
        if len(points) > 1:
            class_to_task = ", ".join(sorted(map(_owner, points)))
            raise InputError(
                f"{self.kind} {name!r} must come from one package, got {class_to_task}"
            )
        return self._accepted(name, self._loaded(name, points[0]))

    def reference(self, value: object) -> str:
        """Returns the name under which `find` gives an object back, in this process and later.

        Raises:
            InputError: If the object does not stand at the top level of a file.
        """
        if isinstance(value, str):
            return value
        for name, known in self.built_in.items():
            if known is value:
                return name
        self._accepted(repr(value), value)
        name = str(getattr(value, "__qualname__", ""))
        file = _file_of(value)
        if file is None or not name.isidentifier():
            raise InputError(
                f"{self.kind} {name or value!r} must stand at the top level of a file, so that the "
                "run can be repeated; save it into one"
            )
        reference = f"{file}:{name}"
        _GIVEN[reference, _digest(file)] = value
        return reference

    def entries(self) -> Iterator[Entry[T]]:
        """Yields all names, the built-in first; what is broken has a `problem` and no value."""
        for name, value in self.built_in.items():
            yield Entry(name, "built in", value)
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

    def _installed(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            if all(point.value != other.value for other in found.get(point.name, [])):
                found.setdefault(point.name, []).append(point)
        return found

    def _loaded(self, name: str, point: EntryPoint) -> object:
        try:
            return point.load()
        except (Exception, SystemExit) as error:
            raise InputError(
                f"{self.kind} {name!r} of {_owner(point)} must be importable, "
                f"got {_in_words(error)}"
            ) from error

    def _referred(self, reference: str) -> object:
        where, _, name = reference.rpartition(":")
        try:
            known = _GIVEN.get((reference, source_digest(reference)))
            module = None if known is not None else _module(where)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(
                f"{self.kind} {reference!r} must be importable, got {_in_words(error)}"
            ) from error
        if module is None:
            return known
        if not hasattr(module, name):
            fitting = [each for each, value in vars(module).items() if self._fits(module, value)]
            raise unknown_name(f"{self.kind} of {where}", name, fitting)
        return getattr(module, name)

    def _fits(self, module: ModuleType, value: object) -> bool:
        if getattr(value, "__module__", None) != module.__name__:
            return False
        try:
            self._accept(value)
        except InputError:
            return False
        return True

    def _accepted(self, name: str, value: object) -> T:
        try:
            return self._accept(value)
        except InputError as error:
            raise InputError(f"{self.kind} {name!r} {error}") from error


def is_reference(text: str) -> bool:
    """Says whether a name has the form `file.py:Name` or `package.module:Name`.

    Example:
        >>> [is_reference(each) for each in ("my/own.py:Mine", "lae", "photos: 2024", "a:b c")]
        [True, False, False, False]
    """
    where, _, name = text.rpartition(":")
    return where not in {"", _BUILT_IN} and name.isidentifier()


def label(name: str) -> str:
    """Returns a name as it stands in directories and reports: letters, digits, `-`, `_` and `.`.

    Example:
        >>> label("../ideas/my_method.py:MyMethod"), label("package.module:Name"), label("lae")
        ('my_method.MyMethod', 'module.Name', 'lae')
        >>> label("avalanche:Naive")
        'avalanche.Naive'
    """
    if is_reference(name) or name.startswith(f"{_BUILT_IN}:"):
        where, _, name_inside = name.rpartition(":")
        stem = Path(where).stem if where.endswith(_SUFFIX) else where.rpartition(".")[2]
        name = f"{stem}.{name_inside}"
    return re.sub(r"[^\w.-]", "_", name).strip(".") or "plugin"


def source_digest(reference: str) -> str:
    """Returns the SHA-256 of the file that a reference leads to.

    Raises:
        InputError: If there is no such file.
    """
    where = reference.rpartition(":")[0]
    if where.endswith(_SUFFIX):
        return _digest(Path(where))
    try:
        found = importlib.util.find_spec(where)
    except (ImportError, ValueError) as error:
        raise InputError(f"module {where!r} must be importable, got {_in_words(error)}") from error
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise InputError(f"module {where!r} must be importable from a file, there is none")
    return _digest(Path(found.origin))


def source_digests(*values: object) -> dict[str, str]:
    """Returns the digest of each file that a reference among some values leads to, by reference.

    Args:
        *values: Names, or mappings of options with names among their values; anything else is
            passed over, and so is text that looks like a reference and leads to no file.
    """
    found: dict[str, str] = {}
    for value in values:
        if isinstance(value, Mapping):
            found |= source_digests(*value.values())
        elif isinstance(value, str) and is_reference(value):
            try:
                found[value] = source_digest(value)
            except InputError:
                continue
    return dict(sorted(found.items()))


def check_call(value: object, **keywords: object) -> None:
    """Refuses what cannot be called with some keyword arguments; calls nothing.

    Raises:
        InputError: With the rule alone, as a registry's `accept` does.
    """
    given = ", ".join(keywords) or "no arguments"
    if not callable(value):
        raise InputError(f"must be a function of {given}, got {value!r}")
    try:
        inspect.signature(value).bind(**keywords)
    except (TypeError, ValueError) as error:
        raise InputError(f"must be a function of {given}, got {value!r}: {error}") from error


def _module(where: str) -> ModuleType:
    if not where.endswith(_SUFFIX):
        return importlib.import_module(where)
    path = Path(where)
    # A changed file is another module: what the old one gave out stays as it was.
    content = f"{path.resolve()} {_digest(path)}"
    name = f"{path.stem}_{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise InputError(f"plugin file {where!r} must be Python source, got another file")
        # Registered before it runs, as an import does: pickle and pydantic look modules up there.
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"plugin file {str(path)!r} must be readable, got: {error}") from error


def _file_of(value: object) -> Path | None:
    try:
        found = inspect.getsourcefile(value)  # type: ignore[arg-type] # refuses what it cannot take
    except (TypeError, OSError):
        return None
    if found is None or not Path(found).is_file():
        return None
    path, here = Path(found).resolve(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _owner(point: EntryPoint) -> str:
    return "an unnamed package" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _in_words(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    where: Any = getattr(error, "lineno", None)
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return f"{text} (line {where})" if where and "line" not in text else text
