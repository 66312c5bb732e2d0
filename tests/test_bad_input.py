"""Every kind of bad input in one table: each ends in one sentence with the thing, rule and value."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cl_adapters import records
from cl_adapters.benchmarks.data.parquet import parquet_source
from cl_adapters.benchmarks.data.sources import (
    array_source,
    digits_source,
    folder_source,
    open_source,
)
from cl_adapters.benchmarks.data.stores import decode_image
from cl_adapters.benchmarks.running import batch
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig, read_recipe
from cl_adapters.benchmarks.streams.class_incremental import class_order, split_classes
from cl_adapters.benchmarks.sweeps.sweep import expand_grid
from cl_adapters.errors import InputError
from cl_adapters.peft.router_registry import find_router
from cl_adapters.records.files import FORMAT_VERSION
from cl_adapters.records.learned import read_checkpoint, write_checkpoint
from cl_adapters.records.run_record import RunRecord
from cl_adapters.shift import find_detector
from cl_adapters.strategies import find_strategy
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.pretrained import load_backbone

Case = tuple[str, Callable[[Path], object], str]


# --- data ----------------------------------------------------------------------------------------


def picture(mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (8, 8)).save(buffer, "TIFF" if mode == "CMYK" else "PNG")
    return buffer.getvalue()


def folder(path: Path, **classes: int) -> Path:
    for name, count in classes.items():
        place = path / name.replace("__", "/")
        place.mkdir(parents=True)
        for index in range(count):
            (place / f"{index}.png").write_bytes(picture() + bytes([index]))
    return path


def table(path: Path, metadata: dict[str, str] | None = None, **columns: Any) -> Path:
    values = {"image": [picture()] * 4, "label": [0, 0, 1, 1], **columns}
    found = pa.table({name: value for name, value in values.items() if value is not None})
    pq.write_table(found.replace_schema_metadata(metadata), path / "x.parquet")
    return path / "x.parquet"


GREY = np.full((4, 8, 8), 0.5)
PAIRS = [0, 0, 1, 1]


def arrays(images: Any = GREY, targets: Any = PAIRS) -> object:
    return array_source("mine", (images, targets), (GREY, PAIRS))


def with_pixel(value: float) -> Any:
    images = GREY.copy()
    images[2, 3, 4] = value
    return images


DATA: list[Case] = [
    ("no such path", lambda p: open_source(str(p / "no")), "/no"),
    ("no such stream", lambda p: open_source("digit"), "did you mean 'digits'"),
    ("empty folder", folder_source, "must hold class folders, got none"),
    ("folder without images", lambda p: folder_source(folder(p, a=2, b=0)), "b' must hold images"),
    ("class of one image", lambda p: folder_source(folder(p, a=3, b=1)), "class 'b'"),
    (
        "class missing from train",
        lambda p: folder_source(folder(p, train__a=2, test__a=2, test__b=2)),
        "class 'b' of .* must have a folder in both train and test, got one in test only",
    ),
    (
        "class missing from test",
        lambda p: folder_source(folder(p, train__a=2, train__b=2, test__a=2)),
        "class 'b' of .* must have a folder in both train and test, got one in train only",
    ),
    (
        "two train folders",
        lambda p: folder_source(folder(p, train__a=1, test__a=1, Training__a=1)),
        r"must hold one train folder, got 'Training', 'train'",
    ),
    ("not an image", lambda _: decode_image(b"text", "a"), "image a must be a JPEG, .* is none"),
    ("empty image", lambda _: decode_image(b"", "a"), "image a must be a JPEG, .* is none"),
    (
        "truncated image",
        lambda _: decode_image(picture()[:48], "a"),
        "image a must be readable, got: ",
    ),
    (
        "image above the limit of its run",
        lambda _: decode_image(picture(), "a", max_pixels=1),
        "a must be readable, got: .* more than the limit of 1; `max_megapixels` sets",
    ),
    ("parquet without labels", lambda p: parquet_source(table(p, label=None)), "column 'label'"),
    ("parquet without images", lambda p: parquet_source(table(p, image=None)), "column 'image'"),
    (
        "image column of numbers",
        lambda p: parquet_source(table(p, image=[1, 2, 3, 4])),
        "column 'image' of .* must hold encoded images as bytes, got int64",
    ),
    (
        "image is null",
        lambda p: parquet_source(table(p, image=[picture(), None] * 2)),
        "image in row 1 of .* must not be empty, got null",
    ),
    (
        "label is null",
        lambda p: parquet_source(table(p, label=[0, None, 1, 1])),
        "label in row 1 of .* must not be empty, got null",
    ),
    (
        "negative label",
        lambda p: parquet_source(table(p, label=[0, -1, 1, 1])),
        "label in row 1 of .* must be a whole number from 0, got -1",
    ),
    (
        "broken label",
        lambda p: parquet_source(table(p, label=[0.0, 0.5, 1.0, 1.0])),
        "label in row 1 of .* must be a whole number from 0, got 0.5",
    ),
    (
        "label is NaN",
        lambda p: parquet_source(table(p, label=[0.0, 0.0, 1.0, float("nan")])),
        "label in row 3 of .* must be a whole number from 0, got nan",
    ),
    (
        "gap in labels",
        lambda p: parquet_source(table(p, label=[0, 0, 2, 2])),
        "labels of .* must run from 0 to 2 without a gap, got none equal to 1",
    ),
    (
        "class names are no JSON",
        lambda p: parquet_source(table(p, {"classes": "a, b"})),
        "class names in .* must be JSON, got",
    ),
    (
        "class names are no texts",
        lambda p: parquet_source(table(p, {"classes": "[1, 2]"})),
        r"class names in .* must be a list of texts, got \[1, 2\]",
    ),
    (
        "fewer names than labels",
        lambda p: parquet_source(table(p, {"classes": '["a"]'})),
        "label in row 2 of .* must be less than the number of class names, 1, got 1",
    ),
    ("pixel is NaN", lambda _: arrays(with_pixel(float("nan"))), "sample 2 of mine train .*nan"),
    ("pixel too bright", lambda _: arrays(with_pixel(7.5)), "sample 2 of mine train .*7.5"),
    ("images of one dimension", lambda _: arrays(np.zeros(4)), r"mine train .*\(4,\)"),
    ("two channels", lambda _: arrays(np.zeros((4, 8, 8, 2))), r"mine train .*\(4, 8, 8, 2\)"),
    ("fewer targets", lambda _: arrays(targets=[0, 1]), "as many images as targets, got 4 and 2"),
    ("broken targets", lambda _: arrays(targets=[0.5] * 4), "vector of integers, got float64"),
]


# --- config --------------------------------------------------------------------------------------


def parse(**changes: Any) -> RunConfig:
    return RunConfig.parse({"strategy": "lae", **changes})


def option(strategy: str = "lae", **options: Any) -> object:
    return batch.expand({"strategy": strategy}, recipe=None, seeds=1, settings=[
        f"{name}={value}" for name, value in options.items()])  # fmt: skip


def recipe(path: Path, text: bytes) -> object:
    (path / "recipe.toml").write_bytes(text)
    return read_recipe(path / "recipe.toml")


def planned(**changes: Any) -> object:
    values = {"strategy": "simplecil", "backbone": "test_vit", "weights": "random"}
    return prepare(RunConfig.parse({**values, "image_size": 16, **changes}), source=SOURCE)


SOURCE = digits_source()
CONFIG: list[Case] = [
    ("unknown key", lambda _: parse(inkrement=2), "unknown recipe key 'inkrement'; did you mean"),
    ("zero classes", lambda _: parse(increment=0), "`increment`: .* equal to 1, got 0"),
    ("text for a number", lambda _: parse(increment="two"), "`increment`: .*, got 'two'"),
    ("true for a number", lambda _: parse(increment=True), "recipe key `increment` must be a number, got true"),
    ("true for a share", lambda _: parse(scenario="blurry", blur=True), "recipe key `blur` must be a number, got true"),
    ("true for a seed", lambda _: batch.expand({"strategy": "lae", "seed": True}, recipe=None, seeds=1, settings=[]), "`seed` must be a whole number, got True"),
    ("false for an option", lambda _: find_strategy("lae").config_class().override({"epochs": False}), "option `epochs` must be a number, got false"),
    ("negative seed", lambda _: parse(seed=-1), "`seed`: .* equal to 0, got -1"),
    ("seed too large", lambda _: parse(seed=2**32), "`seed`: .* less than 4294967296, got 4294967296"),
    ("no such precision", lambda _: parse(precision="fp8"), "`precision`: .*got 'fp8'"),
    ("no such scenario", lambda _: parse(scenario="online"), "`scenario`: .*got 'online'"),
    ("blur elsewhere", lambda _: parse(blur=0.2), "`blur` must go with scenario 'blurry', got 'class'"),
    ("window elsewhere", lambda _: parse(window=30), "`window` must go with key `task_free`, got 30"),
    ("infinite share", lambda _: parse(scenario="blurry", blur=float("inf")), "`blur`: .*got inf"),
    ("increment too large", lambda _: planned(increment=11), "number of classes, 10, got 11"),
    ("no such device", lambda _: planned(device="abacus"), "device must be .*, got 'abacus'"),
    ("no such router", lambda _: find_router("discriminent"), "did you mean 'discriminant'"),
    ("no such detector", lambda _: planned(task_free="mmdd"), "unknown .*'mmdd'"),
    ("input range", lambda _: planned(input_range="imagnet"), "did you mean 'imagenet'"),
    ("order with a gap", lambda _: class_order("0,2", 3), "must hold each class once, 1 is missing"),
    ("order with a repeat", lambda _: class_order("0,0", 2), "must hold each class once, got 0 twice"),
    ("order out of range", lambda _: class_order("0,5", 2), "must hold classes 0 to 1, got 5"),
    ("order of no name", lambda _: class_order("sorted", 2), "unknown class order 'sorted'"),
    ("first too large", lambda _: split_classes(10, 2, 11), "number of classes, 10, got 11"),
    ("no such option", lambda _: option(epochz=2), "'epochz'"),
    ("option out of range", lambda _: option(epochs=0), "`epochs`: .* equal to 1, got '0'"),
    ("option of a wrong kind", lambda _: option(epochs="many"), "`epochs`: .*, got 'many'"),
    ("rate is NaN", lambda _: option(lr="nan"), "`lr`: .*, got 'nan'"),
    ("options that clash", lambda _: option(epochs=3, freeze_epochs=3), "must be below `epochs`, 3"),
    ("no such peft", lambda _: option(peft="adaptor"), "unknown peft 'adaptor'; did you mean 'adapter'"),
    ("a setting without value", lambda _: batch.expand({"strategy": "lae"}, recipe=None, seeds=1, settings=["x"]), "key=value, got 'x'"),
    ("no strategy", lambda _: batch.expand({}, recipe=None, seeds=1, settings=[]), "must name at least one of"),
    ("no such protocol", lambda _: batch.expand({"strategy": "lae", "protocol": "pilot"}, recipe=None, seeds=1, settings=[]), "unknown protocol 'pilot'"),
    ("recipe is missing", lambda p: read_recipe(p / "no.toml"), "must be a readable TOML file, got"),
    ("recipe is no TOML", lambda p: recipe(p, b"a = = 1"), "must be a readable TOML file, got"),
    ("recipe is no text", lambda p: recipe(p, b"\xff\xfe"), "must be a readable TOML file, got"),
    ("grid without strategy", lambda _: expand_grid({"seeds": 2}), "at least one strategy, got none"),
    ("grid without seeds", lambda _: expand_grid({"strategy": "lae", "seeds": 0}), "`seeds` must be .*, got 0"),
    ("grid with an empty axis", lambda _: expand_grid({"strategy": "lae", "increment": []}), "`increment` must hold at least one value"),
]  # fmt: skip


# --- weights -------------------------------------------------------------------------------------


def weights(path: Path, name: str = "w.safetensors", size: int = 32, **changes: Any) -> AdaptedViT:
    """Loads random weights with some tensors changed; None takes a tensor away."""
    state = {**load_backbone("test_vit", weights="random", image_size=32).model.vit.state_dict()}
    for key, value in changes.items():
        state[key.replace("__", ".")] = value
    save_file({key: value for key, value in state.items() if value is not None}, path / name)
    return load_backbone("test_vit", weights=path / name, image_size=size).model


def file(path: Path, name: str, content: bytes) -> object:
    (path / name).write_bytes(content)
    return load_backbone("test_vit", weights=path / name, image_size=32)


def saved(path: Path, value: object) -> object:
    torch.save(value, path / "w.pt")
    return load_backbone("test_vit", weights=path / "w.pt", image_size=32)


NORM = "blocks__2__norm1__weight"
WEIGHTS: list[Case] = [
    ("no such backbone", lambda _: load_backbone("vit_tinny"), "unknown backbone 'vit_tinny'"),
    ("a network that is no ViT", lambda _: load_backbone("resnet18"), "must be a timm VisionTransformer, got ResNet"),
    ("no such file", lambda p: load_backbone("test_vit", weights=p / "no.pt"), "no.pt"),
    ("text", lambda p: file(p, "w.safetensors", b"text"), "w.safetensors' must be readable and free"),
    ("an empty file", lambda p: file(p, "w.pt", b""), "w.pt' must be readable and free of code"),
    ("an empty npz", lambda p: file(p, "w.npz", b""), "w.npz' must"),
    ("a list", lambda p: saved(p, [1, 2]), "must be a state dict of tensors, got list"),
    ("numbers", lambda p: saved(p, {"a": 1}), "must be a state dict of tensors, got dict"),
    ("a tensor missing", lambda p: weights(p, **{NORM: None}), "'blocks.2.norm1.weight' is missing"),
    ("a shape", lambda p: weights(p, **{NORM: torch.zeros(63)}), r"have shape \(64,\), got \(63,\)"),
    ("a tensor too many", lambda p: weights(p, extra=torch.zeros(1)), "'extra' has no place in it"),
    ("image size", lambda p: weights(p, size=40), "multiple of the patch size 16, got 40"),
]  # fmt: skip


# --- plugins -------------------------------------------------------------------------------------


def plugin(path: Path, text: str, name: str = "Mine") -> object:
    (path / "mine.py").write_text(text)
    return find_strategy(f"{path / 'mine.py'}:{name}")


PLUGINS: list[Case] = [
    ("no such strategy", lambda _: find_strategy("lea"), "unknown strategy 'lea'; did you mean 'lae'"),
    ("no such router", lambda _: find_router("discriminent"), "did you mean 'discriminant'"),
    ("no such detector", lambda _: find_detector("adwinn"), "did you mean 'adwin'"),
    ("no such method of Avalanche", lambda _: find_strategy("avalanche:Nive"), "avalanche:Naive"),
    ("a method that does not fit", lambda _: find_strategy("avalanche:LFL"), "must fit one model"),
    ("no such file", lambda p: find_strategy(f"{p}/no.py:Mine"), "no.py' must be readable"),
    ("no class named", lambda p: find_strategy(f"{p}/no.py"), "must have the form file.py:Name"),
    ("broken syntax", lambda p: plugin(p, "def"), "must be importable, got SyntaxError"),
    ("a file that raises", lambda p: plugin(p, "1 / 0"), "must be importable, got ZeroDivisionError"),
    ("another class", lambda p: plugin(p, "class Other: pass"), "unknown strategy .*'Mine'"),
    ("not a strategy", lambda p: plugin(p, "class Mine: pass"), "derived from AdapterStrategy"),
    ("no module", lambda _: find_strategy("no_such_package.x:Y"), "'no_such_package.x' must be import"),
]  # fmt: skip


# --- records -------------------------------------------------------------------------------------


def record(path: Path, text: str | None = None, **changes: Any) -> RunRecord:
    RunRecord(strategy="a", stream="b", seed=0, config={}, fingerprint={}, classes=["c"],
              experiences=[[0]]).write(path)  # fmt: skip
    values = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(text if text is not None else json.dumps({**values, **changes}))
    return RunRecord.read(path)


def read(path: Path, name: str, content: bytes, reader: Callable[[Path], object]) -> object:
    (path / name).write_bytes(content)
    return reader(path)


def edited(path: Path) -> None:
    record(path, seed=1)
    records.verify_checksum(path)


def checkpoint(path: Path, name: str, content: bytes) -> object:
    write_checkpoint(path, 0, {"a": torch.zeros(3)}, [[0]])
    (path / "experience-0000" / name).write_bytes(content)
    return read_checkpoint(path, 0)


def without_column(path: Path) -> object:
    pd.DataFrame({"sample": [1]}).to_parquet(path / "predictions.parquet")
    return records.read_predictions(path)


RECORDS: list[Case] = [
    ("no run", RunRecord.read, "run.json must be a readable run record, got"),
    ("half a record", lambda p: record(p, "{"), "must be a readable run record, got"),
    ("a list", lambda p: record(p, "[]"), "must hold a run record, got"),
    ("a key missing", lambda p: record(p, '{"seed": 1}'), r"lacks \['classes', 'config'"),
    ("a newer format", lambda p: record(p, format=99), f"from 1 to {FORMAT_VERSION}, got 99: a newer cl-adapters"),
    ("no format", lambda p: record(p, format=None), f"a format from 1 to {FORMAT_VERSION}, got None"),
    ("edited by hand", edited, "must match its checksum, but it was damaged or edited"),
    ("damaged predictions", lambda p: read(p, "predictions.parquet", b"PAR1", records.read_predictions), "predictions.parquet must be a readable predictions table"),
    ("predictions without columns", without_column, "must be a readable predictions table"),
    ("damaged examples", lambda p: read(p, "examples.parquet", b"", records.read_examples), "must be a readable examples table"),
    ("damaged retrieval", lambda p: read(p, "retrieval.parquet", b"x", records.read_retrieval), "must be a readable retrieval table"),
    ("a line that is no event", lambda p: read(p, "events.jsonl", b"3\n{}\n", records.read_events), "line 1 must be an event, got '3'"),
    ("events that are no text", lambda p: read(p, "events.jsonl", b"\xff\n{}\n", records.read_events), "line 1 must be an event, got"),
    ("no checkpoint", lambda p: read_checkpoint(p, 3), "experience-0003 must be complete, got"),
    ("half a checkpoint", lambda p: checkpoint(p, "learned.safetensors", b"half"), "must match its checksum, but it was damaged"),
    ("half of its metadata", lambda p: checkpoint(p, "checkpoint.json", b"{"), "must be complete, got"),
    ("other metadata", lambda p: checkpoint(p, "checkpoint.json", b"[]"), r"must hold its metadata, got \[\]"),
    ("a checkpoint from a newer version", lambda p: checkpoint(p, "checkpoint.json", b'{"format": 9}'), "got 9: a newer"),
    ("no folder of runs", lambda p: records.find_runs([p / "no"]), "no' must exist and be a directory"),
]  # fmt: skip

CASES = {
    f"{kind}: {name}": (act, message)
    for kind, cases in (("data", DATA), ("config", CONFIG), ("weights", WEIGHTS),
                        ("plugins", PLUGINS), ("records", RECORDS))
    for name, act, message in cases
}  # fmt: skip


def test_there_are_as_many_cases_as_promised() -> None:
    assert len(CASES) == sum(map(len, (DATA, CONFIG, WEIGHTS, PLUGINS, RECORDS)))
    assert len(CASES) >= 60


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_bad_input_ends_in_one_sentence(name: str, tmp_path: Path, record_property: Any) -> None:
    act, message = CASES[name]
    with pytest.raises(InputError) as caught:
        act(tmp_path)
    text = str(caught.value)
    assert re.search(message, text), text
    assert "\n" not in text.strip(), "one sentence"
    assert len(text) < 1000
    record_property("reliability: bad inputs tried", 1)
