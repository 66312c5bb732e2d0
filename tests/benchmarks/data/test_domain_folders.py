"""Folders of class folders that say what comes when: `2026-01/<class>/…`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cl_adapters.benchmarks.data.reading import ReadOptions
from cl_adapters.benchmarks.data.sources import open_source
from cl_adapters.cli import app
from cl_adapters.errors import InputError
from cl_adapters.records.run_record import RunRecord, find_runs

MONTHS = {"2026-02": ["cat", "dog"], "2026-10": ["dog", "emu"], "2026-1": ["cat"]}
IN_ORDER = ["2026-1", "2026-02", "2026-10"]
DOMAINS = ReadOptions(domain_folders=True)


def write(root: Path, number: int = 4) -> Path:
    rng = np.random.default_rng(0)
    for month, classes in MONTHS.items():
        for name in classes:
            folder = root / month / name
            folder.mkdir(parents=True)
            for place in range(number):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{place}.png")
    return root


def test_a_class_has_the_images_of_all_its_folders_each_with_its_domain(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "photos"), DOMAINS)
    assert source.classes == ("cat", "dog", "emu")
    found = set()
    for images in (source.train, source.test):
        assert images.domains is not None
        for place in range(len(images)):
            _, month, name, file = images.name(place).strip("'").rsplit("/", 3)
            assert images.domains[place] == month
            assert source.classes[images.targets[place]] == name
            found.add((month, name, file))
    assert len(found) == 4 * sum(map(len, MONTHS.values()))
    assert "in those of their domains" in source.reading.layout


def test_splits_hold_domains_too(tmp_path: Path) -> None:
    write(tmp_path / "photos" / "train"), write(tmp_path / "photos" / "test", 2)
    source = open_source(tmp_path / "photos", DOMAINS)
    assert (len(source.train), len(source.test)) == (20, 10)
    assert sorted(set(source.test.domains.tolist())) == sorted(MONTHS)


def test_one_domain_alone_is_one(tmp_path: Path) -> None:
    write(tmp_path / "photos")
    for other in ("2026-10", "2026-1"):
        (tmp_path / "photos" / other).rename(tmp_path / other)
    source = open_source(tmp_path / "photos", DOMAINS)
    assert source.classes == ("cat", "dog")
    assert set(source.train.domains.tolist()) == {"2026-02"}


def test_tables_and_streams_have_no_folders(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,label\nx.png,1\n")
    for data in (tmp_path / "a.csv", "digits"):
        with pytest.raises(InputError, match="recipe key `domain_folders` must go with other data"):
            open_source(data, DOMAINS)


def test_folders_come_one_after_the_other_and_the_report_names_them(tmp_path: Path) -> None:
    data, out = write(tmp_path / "photos"), tmp_path / "runs"
    arguments = [
        "run", "--strategy", "simplecil", "--data", str(data), "--domain-folders", "--scenario",
        "domain", "--class-order", "cat,dog,emu", "--backbone", "test_vit", "--weights", "random",
        "--image-size", "32", "--out", str(out),
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for number, month in enumerate(IN_ORDER, 1):
        assert f"experience {number} of 3 ({month}), " in " ".join(result.output.split())
    (folder,) = find_runs([out])
    record = RunRecord.read(folder)
    assert record.fingerprint["experience_names"] == IN_ORDER
    brought = [[record.classes[place] for place in each] for each in record.experiences]
    assert brought == [MONTHS[month] for month in IN_ORDER]
    made = CliRunner().invoke(
        app, ["report", str(out), "--out", str(tmp_path / "r"), "--formats", "svg"]
    )
    assert made.exit_code == 0, made.output
    page = (tmp_path / "r" / "report.html").read_text("utf-8")
    assert "experiences: 1 2026-1 (cat), 2 2026-02 (cat, dog), 3 2026-10 (dog, emu)." in page


def test_inspecting_finds_the_classes_in_their_domains(tmp_path: Path) -> None:
    data = write(tmp_path / "photos")
    (data / "2026-10" / "emu" / "copy.png").write_bytes(
        (data / "2026-1" / "cat" / "0.png").read_bytes()
    )
    made = CliRunner().invoke(app, ["data", "inspect", str(data), "--domain-folders"])
    assert made.exit_code == 1, made.output
    text = " ".join(made.output.split())
    assert "classes 3" in text
    assert "2026-1/cat/0.png" in text
    assert "2026-10/emu/copy.png" in text
