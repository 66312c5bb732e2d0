"""What is installed: one top-level name, every module, the embedded weights."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import torchvision

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


def test_torch_and_torchvision_fit_each_other() -> None:
    # An operator of torchvision's own library is there only if that was built for this torch.
    kept = torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    assert kept.tolist() == [0]
