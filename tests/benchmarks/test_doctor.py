"""The doctor finds what is broken, and says what to do about each."""

import collections
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cl_adapters.benchmarks import doctor
from cl_adapters.cli import app


def advice(out: Path) -> dict[str, str]:
    return {each.check: each.advice for each in doctor.examine(out) if each.advice}


@pytest.mark.slow
def test_on_a_machine_that_runs_these_tests_nothing_is_wrong(tmp_path: Path) -> None:
    findings = {each.check: each for each in doctor.examine(tmp_path / "runs")}
    assert all(each.advice is None for each in findings.values()), findings
    assert set(findings) >= {"python", "torch", "fit", "cpu", "bf16", "backbone", "disk", "writing"}
    assert not (tmp_path / "runs").exists()
    measured = re.search(r"([0-9.]+) times", findings["bf16"].found)
    assert measured
    assert float(measured[1]) > 0


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed, which takes seconds to measure, is of no interest."""
    monkeypatch.setattr(doctor, "least_seconds", lambda _: 1.0)


@pytest.mark.usefixtures("measured")
def test_old_and_missing_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = doctor.version

    def version(name: str) -> str:
        if name == "river":
            raise doctor.PackageNotFoundError(name)
        return "2.3.1" if name == "torch" else really(name)

    monkeypatch.setattr(doctor, "version", version)
    found = advice(tmp_path)
    assert set(found) == {"river", "torch", "fit"}
    assert "pip install 'river" in found["river"]
    assert ">=" in found["torch"]
    assert "torchvision in one command" in found["fit"]


@pytest.mark.usefixtures("measured")
def test_a_full_disk_and_a_read_only_folder_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**6))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryDirectory", refuse)
    found = advice(tmp_path)
    assert set(found) == {"disk", "writing"}
    assert "choose another --out" in found["writing"]


def test_the_command_exits_with_1_if_something_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    good = [doctor.Finding("python", "3.11")]
    monkeypatch.setattr(doctor, "examine", lambda _: good)
    result = CliRunner().invoke(app, ["doctor"])
    assert (result.exit_code, "nothing here" in result.output) == (0, True)
    bad = [*good, doctor.Finding("disk", "full", "free 2 GiB")]
    monkeypatch.setattr(doctor, "examine", lambda _: bad)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "disk: full: free 2 GiB" in result.output
