"""The sizes that the code keeps, and how long its imports take.

    python docs/house.py            files, functions and classes; exit code 1 beyond a limit
    python docs/house.py imports    processor seconds, beside those of `import torch, timm`

`tests/test_house.py` holds the limits. Lines of a function are those from `def` to its end, its
docstring not counted.
"""  # noqa: INP001 - no package

import ast
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["LIMITS", "Sizes", "beyond", "measure"]

ROOT: Final = Path(__file__).parent.parent
CODE: Final = ("cl_adapters", "strategies", "benchmarks", "reports")
MOST_LINES: Final = 400
MOST_IN_FUNCTION: Final = 30
MOST_METHODS: Final = 20
MEDIAN: Final = 150
SHARE: Final = 0.015  # of the functions may be longer
# Files of which the issue says how long they may be.
LIMITS: Final = {
    "strategies/core/method.py": 100,
    "strategies/sema.py": 300,
    "strategies/mos.py": 350,
    "strategies/lae.py": 170,
}
# Tables of data: a file whose lines are rows may be longer.
TABLES: Final = frozenset[str]()


@dataclass(frozen=True)
class Sizes:
    """What was counted.

    Attributes:
        files: Lines by file, relative to the root.
        functions: Lines by `file:name`, docstrings not counted.
        classes: Public methods and properties of its own by `file:name`.
    """

    files: dict[str, int]
    functions: dict[str, int]
    classes: dict[str, int]

    @property
    def median(self) -> float:
        """Of the lines of a file."""
        return statistics.median(self.files.values())

    @property
    def long_files(self) -> dict[str, int]:
        """Files above the limit that are no tables of data."""
        return {
            name: lines
            for name, lines in self.files.items()
            if lines > MOST_LINES and name not in TABLES
        }

    @property
    def long_functions(self) -> dict[str, int]:
        """Functions above the limit."""
        return {name: lines for name, lines in self.functions.items() if lines > MOST_IN_FUNCTION}

    @property
    def large_classes(self) -> dict[str, int]:
        """Classes with more public methods than the limit."""
        return {name: count for name, count in self.classes.items() if count > MOST_METHODS}


def measure(folders: Sequence[str] = CODE, root: Path = ROOT) -> Sizes:
    """Returns the sizes of all Python files in some folders; links are not followed.

    Args:
        folders: Relative to the root.
        root: Of the checkout.
    """
    sizes = Sizes({}, {}, {})
    for path in _files(folders, root):
        name, text = path.relative_to(root).as_posix(), path.read_text("utf-8")
        sizes.files[name] = len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            key = f"{name}:{getattr(node, 'name', '')}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                sizes.functions[key] = _lines(node)
            elif isinstance(node, ast.ClassDef):
                sizes.classes[key] = len(_public_methods(node))
    return sizes


def beyond(sizes: Sizes) -> list[str]:
    """Returns a sentence for each limit that is not kept."""
    found = [f"{name} has {lines} lines" for name, lines in sizes.long_files.items()]
    found += [f"{name} has {count} public methods" for name, count in sizes.large_classes.items()]
    found += [
        f"{name} has {sizes.files[name]} lines, more than {most}"
        for name, most in LIMITS.items()
        if sizes.files[name] > most
    ]
    if sizes.median > MEDIAN:
        found.append(f"the median file has {sizes.median:g} lines")
    if len(sizes.long_functions) > SHARE * len(sizes.functions):
        longest = ", ".join(f"{name} ({lines})" for name, lines in sizes.long_functions.items())
        found.append(f"too many functions have more than {MOST_IN_FUNCTION} lines: {longest}")
    return found


def _files(folders: Sequence[str], root: Path) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).parts
            if not any((root.joinpath(*parts[:end])).is_symlink() for end in range(1, len(parts))):
                yield path


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    has_doc = ast.get_docstring(node, clean=False) is not None
    doc = _span(first) if has_doc else 0
    return _span(node) - doc


def _span(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _public_methods(node: ast.ClassDef) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {each.name for each in node.body if isinstance(each, kinds) and each.name[0] != "_"}


def _show_sizes() -> int:
    for title, folders in (("code", CODE), ("tests", ("tests",))):
        sizes = measure(folders)
        long, count = len(sizes.long_functions), len(sizes.functions)
        print(  # noqa: T201 - a command
            f"{title}: {len(sizes.files)} files, {sum(sizes.files.values())} lines, "
            f"median {sizes.median:g}, longest {max(sizes.files.values())}, "
            f"{len(sizes.long_files)} above {MOST_LINES}; {count} functions, "
            f"{long} above {MOST_IN_FUNCTION} lines ({long / count:.2%}); "
            f"most public methods {max(sizes.classes.values())}"
        )
    sizes = measure()
    print(", ".join(f"{name} {sizes.files[name]}" for name in LIMITS))  # noqa: T201
    found = beyond(sizes)
    print("\n".join(found) or "all limits are kept")  # noqa: T201
    return int(bool(found))


def _show_imports() -> int:
    floor = _processor_seconds("import torch, timm")
    for code in (
        "import torch, timm",
        "import cl_adapters.strategies",
        "import cl_adapters.strategies.core.strategy",
        "import cl_adapters.strategies.mos, cl_adapters.strategies.sema",
        "import cl_adapters.reports.report",
        "import sys; from cl_adapters.cli import main; sys.argv[1:] = ['--help']; main()",
    ):
        seconds = _processor_seconds(code)
        print(f"{seconds:5.2f} s  x {seconds / floor:.2f}  {code}")  # noqa: T201
    return 0


def _processor_seconds(code: str) -> float:
    """Returns the least of three runs, of a fresh process each."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


if __name__ == "__main__":
    sys.exit(_show_imports() if sys.argv[1:] == ["imports"] else _show_sizes())
