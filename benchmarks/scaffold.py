"""Writes a sound strategy, detector, adapter, router or stream to start from, with its test."""

import importlib.resources
import keyword
from pathlib import Path
from typing import Final

from cl_adapters.errors import InputError, unknown_name

__all__ = ["KINDS", "new_files", "next_steps"]

# The conformance suite's module, its table and its function; what is handed to it.
KINDS: Final[dict[str, tuple[str, str, str, str]]] = {
    "strategy": (
        "cl_adapters.strategies.checks.suite",
        "STRATEGY_CHECKS",
        "check_strategy",
        "{name}",
    ),
    "detector": (
        "cl_adapters.shift.checks",
        "DETECTOR_CHECKS",
        "check_detector",
        "lambda seed: {name}(8, seed=seed)",
    ),
    "adapter": ("cl_adapters.vit.checks", "ADAPTER_CHECKS", "check_adapter", "as_peft({name})"),
    "router": ("cl_adapters.peft.router_checks", "ROUTER_CHECKS", "check_router", "{name}"),
    "stream": ("cl_adapters.benchmarks.streams.checks", "STREAM_CHECKS", "check_stream", "{name}"),
}

_TEST: Final = '''"""{name} keeps the rules of every {kind}."""

import pytest
{first}from {module} import {table}, {check}

from {file} import {name}


@pytest.mark.parametrize("name", {table})
def test_{file}_is_sound(name: str) -> None:
    assert {check}({given}, checks=[name]) == []
'''


def new_files(kind: str, name: str, folder: Path) -> list[Path]:
    """Writes `name.py` and `test_name.py` and returns their paths.

    Args:
        kind: strategy, detector, adapter, router or stream.
        name: Name of the file, such as `my_method`; the class is then `MyMethod`.
        folder: Where to write.

    Raises:
        InputError: If the kind is unknown, the name is not one that Python can import, or a file is
            there already.
    """
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    if not name.isidentifier() or keyword.iskeyword(name) or not name.islower():
        raise InputError(f"name must be a lower-case Python name such as my_method, got {name!r}")
    paths = [folder / f"{name}.py", folder / f"test_{name}.py"]
    for path in paths:
        if path.exists():
            raise InputError(f"file {str(path)!r} must not exist yet, choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in zip(paths, (_source(kind, name), _test(kind, name)), strict=True):
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    return paths


def next_steps(kind: str, path: Path) -> list[str]:
    """Returns the commands that check and run what was written."""
    reference = f"{path}:{_object_name(kind, path.stem)}"
    runs = {
        "strategy": f"--strategy {reference},simplecil --stream digits",
        "detector": f"--strategy sema --stream digits-shift --set detector={reference}",
        "adapter": f"--strategy lae --stream digits --set peft={reference}",
        "router": (
            "--strategy sema --stream digits-shift --set watch=slots --set expandable=3 "
            f"--set router={reference}"
        ),
        "stream": f"--strategy simplecil --stream {reference}",
    }
    return [
        f"cl-adapters check {kind} {reference}",
        f"cl-adapters run {runs[kind]}",
        "cl-adapters report runs",
    ]


def _object_name(kind: str, name: str) -> str:
    return name if kind == "stream" else "".join(part.capitalize() for part in name.split("_"))


def _source(kind: str, name: str) -> str:
    templates = importlib.resources.files("cl_adapters.benchmarks.templates")
    text = (templates / f"my_{kind}.py").read_text("utf-8")
    generic = f"my_{kind}"
    return text.replace(_object_name(kind, generic), _object_name(kind, name)).replace(
        generic, name
    )


def _test(kind: str, name: str) -> str:
    module, table, check, given = KINDS[kind]
    shown = _object_name(kind, name)
    return _TEST.format(
        kind=kind,
        name=shown,
        file=name,
        module=module,
        table=table,
        check=check,
        given=given.format(name=shown),
        first="\nfrom cl_adapters.peft.registry import as_peft\n" if kind == "adapter" else "\n",
    )
