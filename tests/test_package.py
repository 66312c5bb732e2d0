"""What is installed: one top-level name, every module, the embedded weights."""

import ast
import inspect
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import torch
import torchvision

import cl_adapters as cla
from cl_adapters.benchmarks.api import run as run_all

ROOT = Path(__file__).parent.parent
FOLDERS = ("strategies", "benchmarks", "reports")
MAINTENANCE = ROOT / "benchmarks" / "maintenance"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """File names in the wheel built from a copy of what git would give a new clone."""
    copy = tmp_path_factory.mktemp("clone")
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    archive = subprocess.run(["tar", "c", *files], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "x"], cwd=copy, input=archive.stdout, check=True)
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    result = subprocess.run(build, cwd=copy, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    with zipfile.ZipFile(next(out.glob("*.whl"))) as file:
        return file.namelist()


def test_the_top_level_is_exactly_cl_adapters(wheel: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"cl_adapters"}


def test_every_module_and_data_file_is_in_the_wheel(wheel: list[str]) -> None:
    expected = {f"cl_adapters/{path.name}" for path in (ROOT / "cl_adapters").glob("*.py")}
    for folder in FOLDERS:
        for kind in ("*.py", "*.j2"):
            found = [
                path for path in (ROOT / folder).rglob(kind) if MAINTENANCE not in path.parents
            ]
            expected |= {f"cl_adapters/{path.relative_to(ROOT).as_posix()}" for path in found}
    expected |= {
        "cl_adapters/py.typed",
        "cl_adapters/benchmarks/listing/backbones.json",
        "cl_adapters/benchmarks/recipes/gtsrb.toml",
        "cl_adapters/vit/weights/vit_pico_patch4_32.halves",
        "cl_adapters/vit/weights/vit_pico_patch4_32.json",
    }
    assert expected <= set(wheel), sorted(expected - set(wheel))


def test_what_only_maintainers_use_is_not_in_the_wheel(wheel: list[str]) -> None:
    assert any(MAINTENANCE.glob("*.py"))
    assert not [name for name in wheel if "maintenance" in name]


def test_nothing_in_the_wheel_imports_what_only_maintainers_use(wheel: list[str]) -> None:
    for name in wheel:
        if name.endswith(".py"):
            text = (ROOT / name).read_text("utf-8")
            imported = [
                module
                for node in ast.walk(ast.parse(text))
                for module in _imported(node)
                if f"{module}.".startswith("cl_adapters.benchmarks.maintenance.")
            ]
            assert not imported, name


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{each.name}" for each in node.names]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value.replace(":", ".")]  # a registry's "module:name"
    return []


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_source_folders_are_relative_links(folder: str) -> None:
    link = ROOT / "cl_adapters" / folder
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{folder}"


def test_reading_records_loads_no_torch() -> None:
    code = (
        "import sys, cl_adapters.records, cl_adapters.reports.report; print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_importing_the_package_loads_nothing_heavy_and_names_come_when_asked_for() -> None:
    code = """
import sys
import cl_adapters as cla
heavy = ["torch", "avalanche", "pandas", "numpy", "matplotlib", "pydantic", "timm"]
loaded = lambda: [name for name in heavy if name in sys.modules]
print(loaded(), sorted(cla.__all__) == dir(cla), "run" in dir(cla))
cla.InputError
print(loaded())
cla.load_runs, cla.Runs
print("pandas" in loaded(), "torch" in loaded(), "matplotlib" in loaded())
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "QP solver" not in result.stderr
    assert result.stdout.splitlines() == ["[] True True", "[]", "True False False"]


# By default `test_each_name_of_the_package_is_what_stands_in_its_module` asks for `run` as well.
@pytest.mark.slow
def test_the_runner_comes_with_torch_and_says_nothing() -> None:
    code = "import sys, cl_adapters as cla; cla.run; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "QP solver" not in result.stderr
    assert result.stdout.strip() == "True"


@pytest.mark.parametrize("name", cla.__all__)
def test_each_name_of_the_package_is_what_stands_in_its_module(name: str) -> None:
    value = getattr(cla, name)
    if name != "__version__":
        assert value is getattr(sys.modules[value.__module__], name)
        assert value.__doc__


def test_a_name_that_the_package_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'cl_adapters' has no attribute 'load_run'"):
        cla.load_run  # noqa: B018
    assert not hasattr(cla, "__wrapped__")


def test_run_takes_what_the_runner_s_takes_and_returns_what_it_recorded(tmp_path: Path) -> None:
    ours, theirs = inspect.signature(cla.run), inspect.signature(run_all)
    assert ours.parameters == theirs.parameters
    make = {"increment": 5, "image_size": 16, "out": tmp_path / "runs"}
    cla.run("simplecil", seed=1, **make)
    runs = cla.run("simplecil", seeds=1, **make)
    assert [run.record.seed for run in runs] == [0]  # not what else is in the folder
    assert len(cla.load_runs(tmp_path)) == 2
    frame = pd.read_parquet(runs[0].folder / "predictions.parquet")
    last = frame[frame["experience"] == 1]
    accuracy = 100 * (last["prediction"] == last["target"]).mean()
    assert runs.table()["a_last_micro_mean"].tolist() == [pytest.approx(accuracy)]
    with pytest.raises(cla.InputError, match="unknown strategy 'simplecill'"):
        cla.run("simplecill", **make)


@pytest.mark.parametrize(
    ("strategy", "settings", "message"),
    [
        (5, {}, "strategies must be names or classes, got 5"),
        (["lae", 5], {}, "strategies must be names or classes, got ['lae', 5]"),
        (int, {}, "must be a class derived from AdapterStrategy"),
        ("lae", {"options": "epochs=1"}, "options must be a mapping of names to values, got 'epo"),
        ("lae", {"seeds": "3"}, "seeds must be from 1 to 10000, got '3'"),
        ("lae", {"image_sise": 16}, "unknown recipe key 'image_sise'; did you mean 'image_size'"),
    ],
)
def test_what_run_cannot_take_is_one_sentence(
    strategy: object, settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(cla.InputError, match=re.escape(message)):
        cla.run(strategy, out=tmp_path / "runs", **settings)
    assert list(tmp_path.iterdir()) == []


def test_torch_and_torchvision_fit_each_other() -> None:
    # An operator of torchvision's own library is there only if that was built for this torch.
    kept = torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    assert kept.tolist() == [0]
