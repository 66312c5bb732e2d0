"""Folders and tables of chance: a source that can be read whole, or one sentence."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.inspect_data import inspect_data
from cl_adapters.benchmarks.data.reading import ReadOptions
from cl_adapters.benchmarks.data.sources import open_source
from cl_adapters.benchmarks.data.verifying import verify_images
from cl_adapters.errors import InputError
from tests.benchmarks.data import folders_of_chance as chance
from tests.fuzz.fuzzing import fuzz

Record = Callable[[str, object], None]
QUICK, LONG = 25, 600


def good_or_one_sentence(act: Callable[[], ImageSource]) -> ImageSource | None:
    try:
        source = act()
        verify_images(source)
    except InputError as error:
        said = str(error).strip()
    else:
        return with_every_class(source)
    assert said
    assert "\n" not in said
    return None


def with_every_class(source: ImageSource) -> ImageSource:
    for images in (source.train, source.test):
        assert set(images.targets.tolist()) == set(range(len(source.classes)))
    return source


def files_once(root: Path) -> int:
    """Counts files and links, each once and none of them entered."""
    count = 0
    for where, folders, files in os.walk(root):
        count += len(files) + sum(Path(where, name).is_symlink() for name in folders)
    return count


def try_folder(entries: dict[Any, Any], given_options: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "photos"
        root.mkdir()
        chance.write_folder(root, entries)
        options = ReadOptions(**given_options)
        source = good_or_one_sentence(lambda: open_source(root, options))
        inspected = inspect_data(root, options=options)
        assert source is not None or not inspected.is_good, "inspect sees what stops a run"
        if source is None or not source.reading.layout.startswith(("class folders", "train in")):
            return
        used = [each.name(row) for each in (source.train, source.test) for row in range(len(each))]
        assert len(set(used)) == len(used)
        assert len(used) == len(inspected.looks)
        # Each file is used or told of; more only where a link leads to others.
        assert len(used) + len(source.reading.left_out) >= files_once(root) - links_in(root)


def links_in(root: Path) -> int:
    return sum(
        Path(where, name).is_symlink()
        for where, folders, files in os.walk(root)
        for name in [*folders, *files]
    )


def try_table(table: Any, given_options: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "x.parquet"
        if chance.write_table(path, table):
            options = ReadOptions(**given_options)
            source = good_or_one_sentence(lambda: open_source(path, options))
            inspected = inspect_data(path, options=options)
            assert source is not None or not inspected.is_good


def test_folders_are_read_or_refused(record_property: Record) -> None:
    fuzz(try_folder, QUICK, chance.folders, chance.options)
    record_property("reliability: odd folders", QUICK)


def test_tables_are_read_or_refused(record_property: Record) -> None:
    fuzz(try_table, QUICK, chance.tables, chance.options)
    record_property("reliability: odd tables", QUICK)


@pytest.mark.slow
def test_many_folders_are_read_or_refused(record_property: Record) -> None:
    fuzz(try_folder, LONG, chance.folders, chance.options)
    record_property("reliability: odd folders", LONG)


@pytest.mark.slow
def test_many_tables_are_read_or_refused(record_property: Record) -> None:
    fuzz(try_table, LONG, chance.tables, chance.options)
    record_property("reliability: odd tables", LONG)
