"""Every command of the README and of the pages it leads to is run: make targets by `.ci/run`."""

import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cl_adapters.cli import app

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/streams.md", "docs/running.md", "docs/results.md")
TEXT = "\n".join((ROOT / page).read_text("utf-8") for page in PAGES)
DATA = ROOT.parent / "shared" / "data"


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", TEXT, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


REAL = [line for line in commands() if "--recipe" in line or "-shift" in line]
LOCAL = [line for line in commands() if line not in REAL and not line.startswith("make ")]


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def test_make_targets_are_run_by_ci() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    targets = [line for line in commands() if line.startswith("make ")]
    assert {"make demo", "make test"} <= set(targets)
    assert all(target in script for target in targets)


def make_photos(folder: Path) -> None:
    """Twelve classes of plain colours with noise, eight images each."""
    generator = np.random.default_rng(0)
    for label in range(12):
        (folder / f"class {label}").mkdir(parents=True)
        for index in range(8):
            pixels = generator.integers(0, 60, (20, 24, 3)) + np.array(
                [label * 15, 90, 180 - label * 15]
            )
            Image.fromarray(pixels.astype(np.uint8)).save(
                folder / f"class {label}" / f"{index}.png"
            )


def run(line: str, *extra: str) -> None:
    program, *arguments = shlex.split(line)
    assert program == "cl-adapters"
    result = CliRunner().invoke(app, [*arguments, *extra])
    assert result.exit_code == 0, f"{line}\n{result.output}"


# Each command as it stands, shortened by options that come last and therefore count.
SHORTER = ["--seeds", "1", "--quiet"]


def shortened(line: str) -> list[str]:
    if " sweep " in line:
        return ["--dry-run"]  # its runs are those of the tests of sweeps
    if " run " not in line:
        return []
    strategies = line.split("--strategy ")[1].split()[0].split(",")
    epochs = [] if strategies == ["simplecil"] else ["--set", "epochs=1"]
    freeze = ["--set", "lae.freeze_epochs=0"] if "lae" in strategies else []
    return [*SHORTER, *epochs, *freeze]


FEWER = {
    "cifar100_mini": ["--max-classes", "20", "--first", "10", "--increment", "10"],
    "gtsrb": ["--max-classes", "14", "--first", "8", "--increment", "6"],
    "digits-shift": ["--max-images-per-class", "60", "--num-experiences", "6", "--changes", "3"],
}


@pytest.mark.slow
def test_commands_on_local_data_work_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_photos(tmp_path / "photos")
    tables = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)
    (grid,) = [each for each in tables if "strategy = [" in each]
    (tmp_path / "grid.toml").write_text(grid, "utf-8")
    monkeypatch.chdir(tmp_path)
    assert len(LOCAL) >= 4
    for line in LOCAL:
        smaller = ["--image-size", "16"] if " run " in line else []
        run(line, *shortened(line), *smaller)
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="real images are not beside the checkout")
@pytest.mark.parametrize("line", REAL)
def test_commands_on_real_data_work_on_small_inputs(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    # Two experiences in place of many: what is tried is the command.
    fewer = next((rest for name, rest in FEWER.items() if name in line), [])
    if " run " in line:
        # A processor without bfloat16 would take ten times as long for it.
        out = ["--image-size", "32", "--precision", "fp32", "--out", str(tmp_path / "runs")]
        run(line, *shortened(line), *fewer, *out)


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    path = tmp_path / "example.py"
    path.write_text(code.replace("epochs=4", "epochs=1, freeze_epochs=0"), "utf-8")
    monkeypatch.chdir(tmp_path)
    results = runpy.run_path(str(path))
    assert results["strategy"].classes_seen == list(range(10))
