"""Slow: hypothesis feeds every parser and config with rubbish: each takes it or refuses it in a sentence."""

import json
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from cl_adapters import records
from cl_adapters.benchmarks.data.parquet import parquet_source
from cl_adapters.benchmarks.running import batch
from cl_adapters.benchmarks.running.checkpoints import read_checkpoint, write_checkpoint
from cl_adapters.benchmarks.running.recipe import RECIPE_KEYS, RunConfig, read_recipe
from cl_adapters.benchmarks.streams.class_incremental import class_order, split_classes
from cl_adapters.benchmarks.sweeps.sweep import expand_grid
from cl_adapters.errors import InputError
from cl_adapters.records.run_record import RunRecord
from cl_adapters.strategies import STRATEGIES
from cl_adapters.vit.pretrained import load_backbone

pytestmark = pytest.mark.slow

fuzzed = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)

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


@fuzzed
@given(st.dictionaries(st.sampled_from(sorted(RECIPE_KEYS)) | texts, values, max_size=5))
def test_recipes(given_values: dict[str, Any]) -> None:
    takes_or_refuses(lambda: RunConfig.parse({"strategy": "lae", **given_values}))


@fuzzed
@given(st.dictionaries(st.sampled_from(["strategy", "seeds", "options", "increment"]), values))
def test_grids(grid: dict[str, Any]) -> None:
    takes_or_refuses(lambda: expand_grid(grid))


@pytest.mark.parametrize("name", STRATEGIES)
def test_options_of_every_strategy(name: str) -> None:
    kind = STRATEGIES[name].config_class
    fields = st.sampled_from(sorted(kind.model_fields))

    @fuzzed
    @given(st.dictionaries(fields, values | texts, max_size=3))
    def try_them(options: dict[str, Any]) -> None:
        takes_or_refuses(lambda: as_written(kind().override(options)))

    def as_written(config: BaseModel) -> None:
        json.dumps(config.model_dump(mode="json"), allow_nan=False)

    try_them()


@fuzzed
@given(st.lists(texts | st.from_regex(r"[a-z_.]{1,12}=.{0,8}", fullmatch=True), max_size=3))
def test_settings(texts: list[str]) -> None:
    given_values = {"strategy": "lae,simplecil"}
    takes_or_refuses(lambda: batch.expand(given_values, recipe=None, seeds=1, settings=texts))


@fuzzed
@given(st.text(string.digits + ",- ", max_size=12) | texts, st.integers(1, 6), st.integers())
def test_class_orders(rule: str, classes: int, number: int) -> None:
    takes_or_refuses(lambda: class_order(rule, classes))
    takes_or_refuses(lambda: split_classes(classes, number))


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
    @settings(fuzzed, max_examples=25)
    @given(st.sampled_from(STARTS), st.binary(max_size=60))
    def try_them(start: bytes, rest: bytes) -> None:
        written(name, start + rest, READERS[name])

    try_them()


@fuzzed
@given(st.sampled_from(["checkpoint.json", "learned.safetensors"]), st.data())
def test_checkpoints_with_flipped_bits_are_noticed(name: str, data: st.DataObject) -> None:
    """Not a single bit of a checkpoint can change without being seen."""
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), 0, {"a": torch.arange(4.0)})
        path = Path(folder) / "experience-0000" / name
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, 8 * len(content) - 1))
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        with pytest.raises(InputError, match="checkpoint .* must"):
            read_checkpoint(Path(folder), 0)
