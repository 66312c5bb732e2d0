"""The example plugins pass their own tests, and what `cl-adapters new` writes is sound."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cl_adapters.benchmarks.conformance import check_plugin
from cl_adapters.benchmarks.scaffold import KINDS, new_files
from cl_adapters.cli import app
from cl_adapters.errors import InputError
from cl_adapters.strategies import STRATEGIES

ROOT = Path(__file__).parent.parent
TINY = ["--backbone", "test_vit", "--weights", "random", "--image-size", "32", "--quiet"]


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def plugins_and_methods() -> list[Path]:
    methods = ROOT / "strategies"
    return [
        *(ROOT / "examples").glob("*/cl_adapters_*/*.py"),
        *(ROOT / "benchmarks" / "templates").glob("my_*.py"),
        *(methods / f"{name}.py" for name in STRATEGIES),
    ]  # fmt: skip


@pytest.mark.parametrize("path", plugins_and_methods(), ids=lambda path: path.name)
def test_outsiders_and_our_own_methods_use_public_names_alone(path: Path) -> None:
    # That neither touches another object's private attributes is what `make lint` says (SLF).
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cl_adapters"):
            public = importlib.import_module(str(node.module)).__all__
            assert {alias.name for alias in node.names} <= set(public), node.module


@pytest.mark.slow
def test_the_example_and_a_written_test_pass(tmp_path: Path) -> None:
    new_files("adapter", "low_rank", tmp_path)
    example = ROOT / "examples" / "knn"
    quiet = ["-q", "-p", "no:randomly", "-p", "no:xdist", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *quiet, "-c", os.devnull, str(example / "tests"), str(tmp_path)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(example)}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_what_new_writes_is_sound(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = call("new", kind, "my_own")
    assert code == 0, text
    reference = next(line.split()[-1] for line in text.splitlines() if "check" in line)
    assert reference == ("my_own.py:my_own" if kind == "stream" else "my_own.py:MyOwn")
    found = list(check_plugin(kind, reference))
    assert [sentence for each in found for sentence in each.sentences] == []
    test = (tmp_path / "test_my_own.py").read_text()
    assert f"from my_own import {reference.partition(':')[2]}" in test
    compile(test, "test_my_own.py", "exec")
    assert len((tmp_path / "my_own.py").read_text().splitlines()) <= 120


@pytest.mark.slow
def test_a_new_strategy_runs_beside_a_built_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    new_files("strategy", "my_method", tmp_path)
    code, text = call(
        "run", "--strategy", "my_method.py:MyMethod,simplecil", "--increment", "5", *TINY,
        "--set", "epochs=1", "--set", "my_method.MyMethod.momentum=0.5", "--set", "peft=lora",
    )  # fmt: skip
    assert code == 0, text
    code, text = call("report", "runs", "--formats", "svg")
    assert code == 0, text
    assert "my_method.MyMethod" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["strategie", "mine"], "unknown kind 'strategie'; did you mean 'strategy'"),
        (["strategy", "My-Method"], "name must be a lower-case Python name such as my_method"),
        (["strategy", "class"], "got 'class'"),
    ],
)
def test_bad_names_are_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    code, text = call("new", *arguments, "--out", str(tmp_path))
    assert code == 2
    assert message in text
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("precious")
    with pytest.raises(InputError, match="must not exist yet"):
        new_files("strategy", "mine", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
    assert (tmp_path / "test_mine.py").read_text() == "precious"


def test_the_command_says_what_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("leaky.py").write_text(
        "from cl_adapters.strategies.simplecil import SimpleCIL\n\n\n"
        "class Leaky(SimpleCIL):\n"
        "    def begin_experience(self):\n"
        "        self.backbone.vit.cls_token.data += 1\n"
    )
    code, text = call("check", "strategy", "leaky.py:Leaky", "--only", "backbone,seeds")
    assert code == 1
    assert "BROKEN backbone" in text
    assert "the backbone must stay bit-identical, got another 'vit.cls_token'" in text
    assert "ok     seeds" in text
    for arguments, message in (
        (["strategy", "leaky.py:Leaky", "--only", "seed"], "unknown check 'seed'"),
        (["detector", "ks", "--set", "a=1"], "--set must go with a strategy"),
        (["strategy", "simplecil", "--set", "epochs"], "must have the form key=value"),
        (["strategy", "simplecil", "--set", "epoks=1"], "unknown option 'epoks'"),
        (["strategies", "simplecil"], "unknown kind 'strategies'"),
    ):
        code, text = call("check", *arguments)
        assert code == 2
        assert message in text
