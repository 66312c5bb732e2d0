"""Tables that import what is asked for, and a family of names behind a prefix."""

import subprocess
import sys
from pathlib import Path

import pytest

from cl_adapters.errors import InputError
from cl_adapters.plugins.registry import Family, Registry
from cl_adapters.plugins.tables import LazyTable


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that says when it is imported."""
    (tmp_path / "late_part.py").write_text(
        "class One: ...\nclass Two: ...\n"
        "def names(): return ['kin:One', 'kin:Two']\n"
        "def find(name): return {'kin:One': One, 'kin:Two': Two}[name]\n"
        "for kind in (One, Two): kind.__module__ = __name__\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "late_part"
    sys.modules.pop("late_part", None)


def accept(value: object) -> type:
    if isinstance(value, type):
        return value
    raise InputError(f"must be a class, got {value!r}")


def test_a_table_imports_what_is_looked_up_and_nothing_before(part: str) -> None:
    table: LazyTable[object] = LazyTable({"one": f"{part}:One", "here": int})
    assert list(table) == ["one", "here"]
    assert "one" in table
    assert table.name_of(int) == "here"
    assert part not in sys.modules
    assert table["one"].__name__ == "One"
    assert table["one"] is table["one"]
    assert table.name_of(sys.modules[part].One) == "one"
    assert table.name_of(sys.modules[part].Two) is None
    with pytest.raises(KeyError):
        _ = table["two"]


def test_a_family_is_asked_only_for_its_own_names(part: str) -> None:
    family = Family("kin", names=f"{part}:names", find=f"{part}:find")
    registry = Registry("thing", "cl_adapters.none", {"whole": int}, accept, family=family)
    assert registry.find("whole") is int
    assert "kin:One" in registry
    assert registry.is_built_in("kin:One")
    assert not registry.is_built_in("math:pi")
    assert part not in sys.modules
    assert registry.find("kin:Two").__name__ == "Two"
    assert registry.names() == ["whole", "kin:One", "kin:Two"]
    assert [entry.name for entry in registry.entries()] == registry.names()
    assert registry.reference(registry.find("kin:Two")) == "kin:Two"
    with pytest.raises(InputError, match="unknown thing 'hole'; did you mean 'whole'"):
        registry.find("hole")


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("cl_adapters.strategies", "torch avalanche timm pydantic numpy"),
        ("cl_adapters.shift", "river sklearn scipy avalanche"),
        ("cl_adapters.benchmarks.running.recipe", "torch timm pandas numpy PIL avalanche"),
        ("cl_adapters.benchmarks.listing.methods", "torch timm pandas avalanche"),
        ("cl_adapters.cli", "torch pydantic pandas rich jinja2"),
        ("cl_adapters.cli.run", "torch timm pandas avalanche rich"),
        ("cl_adapters", "torch pydantic numpy"),
    ],
)
def test_what_is_imported_loads_nothing_heavy(module: str, heavy: str) -> None:
    code = f"import sys, {module}; print([m for m in {heavy.split()} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
