"""Slow: hypothesis feeds every parser with rubbish: each takes it or refuses it in a sentence."""

import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from cl_adapters import records
from cl_adapters.benchmarks.data.parquet import parquet_source
from cl_adapters.benchmarks.running import batch
from cl_adapters.benchmarks.running.recipe import read_recipe
from cl_adapters.benchmarks.streams.class_incremental import class_order, split_classes
from cl_adapters.benchmarks.sweeps.sweep import expand_grid
from cl_adapters.errors import InputError
from cl_adapters.records.learned import read_checkpoint, write_checkpoint
from cl_adapters.records.run_record import RunRecord
from cl_adapters.vit.pretrained import load_backbone
from tests.fuzz.fuzzing import fuzz

pytestmark = pytest.mark.slow

EXAMPLES = 60
Record = Callable[[str, object], None]

numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 2**63, 1e308])
texts = st.text(max_size=12) | st.sampled_from(
    ["", "nan", "1e999", "../..", "a\0b", "\ud800", "[red]"]
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def takes_or_refuses(act: Callable[[], object]) -> None:
    """Anything but a result or one sentence is a defect of ours."""
    said = "fine"
    try:
        act()
    except InputError as error:
        said = str(error).strip()
    assert said
    assert "\n" not in said


@pytest.fixture(autouse=True)
def counted(record_property: Record) -> None:
    record_property("reliability: pieces of rubbish for parsers", EXAMPLES)


def test_grids() -> None:
    keys = st.sampled_from(["strategy", "seeds", "options", "increment"])

    def try_it(grid: dict[str, Any]) -> None:
        takes_or_refuses(lambda: expand_grid(grid))

    fuzz(try_it, EXAMPLES, st.dictionaries(keys, values))


def test_settings() -> None:
    def try_them(given: list[str]) -> None:
        recipe = {"strategy": "lae,simplecil"}
        takes_or_refuses(lambda: batch.expand(recipe, recipe=None, seeds=1, settings=given))

    pairs = st.from_regex(r"[a-z_.]{1,12}=.{0,8}", fullmatch=True)
    fuzz(try_them, EXAMPLES, st.lists(texts | pairs, max_size=3))


def test_class_orders() -> None:
    def try_it(rule: str, classes: int, number: int) -> None:
        takes_or_refuses(lambda: class_order(rule, classes))
        takes_or_refuses(lambda: split_classes(classes, number))

    rules = st.text(string.digits + ",- ", max_size=12) | texts
    fuzz(try_it, EXAMPLES, rules, st.integers(1, 6), st.integers())


def written(name: str, data: bytes, read: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        takes_or_refuses(lambda: read(path))


READERS: dict[str, Callable[[Path], object]] = {
    "recipe.toml": read_recipe,
    "run.json": lambda path: RunRecord.read(path.parent),
    "events.jsonl": lambda path: records.read_events(path.parent),
    "predictions.parquet": lambda path: records.read_predictions(path.parent),
    "images.parquet": parquet_source,
    "w.safetensors": lambda path: load_backbone("test_vit", weights=path, image_size=32),
    "w.pt": lambda path: load_backbone("test_vit", weights=path, image_size=32),
    "w.npz": lambda path: load_backbone("test_vit", weights=path, image_size=32),
}
STARTS = [
    b"",
    b"PAR1",
    b"PK\x03\x04",
    b"\x80\x02",
    b"{",
    b"[",
    b'{"event": 1, ',
    b"\x08" + bytes(7),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", READERS)
def test_files_of_rubbish(name: str) -> None:
    def try_it(start: bytes, rest: bytes) -> None:
        written(name, start + rest, READERS[name])

    fuzz(try_it, EXAMPLES, st.sampled_from(STARTS), st.binary(max_size=60))


def test_checkpoints_with_flipped_bits_are_noticed() -> None:
    """Not a single bit of a checkpoint can change without being seen."""

    def try_it(name: str, bit: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder), 0, {"a": torch.arange(4.0)}, [[0]])
            path = Path(folder) / "experience-0000" / name
            content = bytearray(path.read_bytes())
            content[bit // 8 % len(content)] ^= 1 << bit % 8
            path.write_bytes(content)
            with pytest.raises(InputError, match="checkpoint .* must"):
                read_checkpoint(Path(folder), 0)

    names = st.sampled_from(["checkpoint.json", "learned.safetensors"])
    fuzz(try_it, EXAMPLES, names, st.integers(0, 10**5))
