"""Every block of the tutorial and of the guides runs, from top to bottom, in an empty folder."""

import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cl_adapters.cli import app

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ["tutorial.md", *sorted(f"guides/{path.name}" for path in (DOCS / "guides").glob("*.md"))]
# Each command as it stands, shortened by options that come last and therefore count.
SHORTER = ["--image-size", "8", "--increment", "5", "--quiet"]


def blocks(page: str) -> list[tuple[str, str]]:
    """Returns language and text of each block, those in lists unindented."""
    text = (DOCS / page).read_text("utf-8")
    found = re.findall(
        r"^( *)```(console|python|toml)\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE
    )
    return [(kind, re.sub(rf"^{indent}", "", body, flags=re.M)) for indent, kind, body in found]


SOME_CHECKS = {
    "strategy": "answers,resumes",
    "detector": "fires",
    "adapter": "state",
    "router": "state",
    "stream": "opens",
}


def run(line: str) -> None:
    program, *arguments = shlex.split(line)
    if program == "sed":
        subprocess.run([program, *arguments], check=True)
        return
    assert program == "cl-adapters"
    if arguments[0] == "run":
        shift = "digits-shift" in line or "--scenario" in line
        arguments += [each for each in SHORTER if not (shift and each in {"--increment", "5"})]
        if "sema" in line:
            arguments += ["--set", "sema.epochs=1", "--set", "sema.descriptor_epochs=2"]
    if arguments[0] == "tune":
        arguments += [*SHORTER, "--trials", "2"]
    if arguments[0] == "check":
        arguments += ["--only", SOME_CHECKS[arguments[1]]]
    if arguments[0] == "sweep":
        arguments += ["--dry-run"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception}"


# What trains takes its time: those pages run with `make slow`.
SLOW = {
    f"guides/{each}.md"
    for each in (
        "adapter",
        "continue",
        "detector",
        "predict",
        "python",
        "router",
        "service",
        "strategy",
        "tune",
    )
} | {"tutorial.md"}
CASES = [pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW)) for page in PAGES]


@pytest.mark.parametrize("page", CASES)
def test_every_block_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks(page)
    assert len(found) >= 3
    for kind, text in found:
        if kind == "console":
            for line in text.strip().splitlines():
                run(line)
        elif kind == "toml":
            (tmp_path / "grid.toml").write_text(text)
        else:
            code = text.replace('stream="digits"', 'stream="digits", image_size=8, increment=5')
            code = code.replace("seeds=2", "seeds=1")
            (tmp_path / "block.py").write_text(code)
            runpy.run_path("block.py")


def test_the_tutorial_s_edits_change_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for kind, text in blocks("tutorial.md") if kind == "console"
             for line in text.strip().splitlines()]  # fmt: skip
    run(lines[0])
    for line in (each for each in lines if each.startswith("sed")):
        before = Path("my_method.py").read_text()
        run(line)
        assert Path("my_method.py").read_text() != before, line
