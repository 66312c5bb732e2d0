"""Nothing that is loaded runs code, leaves its folder, or fills the memory."""

import ast
import hashlib
import io
import json
import pickle
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cl_adapters.benchmarks.data.parquet import parquet_source
from cl_adapters.benchmarks.data.sources import array_source, folder_source
from cl_adapters.benchmarks.data.stores import decode_image
from cl_adapters.benchmarks.running import batch
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig, read_recipe
from cl_adapters.errors import InputError
from cl_adapters.records.events import read_events
from cl_adapters.records.files import add_checksum
from cl_adapters.records.learned import read_checkpoint
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions
from cl_adapters.vit.pretrained import load_backbone

ROOT = Path(__file__).parents[2]
FOLDERS = ("cl_adapters", "strategies", "benchmarks", "reports", "examples")
# Calls that run what they are given, by the last part of their name.
RUN_CODE = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cPickle.load", "dill.load", "dill.loads",
    "joblib.load", "marshal.load", "marshal.loads", "shelve.open", "pd.read_pickle",
    "pandas.read_pickle", "yaml.load", "yaml.unsafe_load", "eval", "exec",
}  # fmt: skip
# The checks of detectors pickle a detector and read back their own bytes.
EXPECTED = {("cl_adapters/shift/checks.py", "pickle.loads")}


LAST = {name.rpartition(".")[2] for name in RUN_CODE}


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Yields path, name and node of each call whose name could be one of those."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call):
                    last = getattr(node.func, "attr", getattr(node.func, "id", ""))
                    if last in LAST or any(each.arg == "allow_pickle" for each in node.keywords):
                        yield path.relative_to(ROOT).as_posix(), ast.unparse(node.func), node


def test_no_file_of_the_package_unpickles_or_runs_what_it_reads() -> None:
    assert {(path, name) for path, name, _ in calls() if name in RUN_CODE} == EXPECTED
    loads = 0
    for path, name, node in calls():
        given = {each.arg: ast.unparse(each.value) for each in node.keywords}
        if name == "torch.load":
            loads += 1
            assert given.get("weights_only") == "True", path
        assert given.get("allow_pickle", "False") == "False", path
    assert loads == 1, "the weights of others"


class Payload:
    """What a malicious pickle would run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('the pickle was executed')",)


EVIL = pickle.dumps(Payload(), protocol=2)
SMALL = {"image_size": 32}


def test_a_pickle_in_the_place_of_anything_is_not_run(tmp_path: Path) -> None:
    for suffix in ("pt", "pth", "bin", "safetensors", "npz"):
        path = tmp_path / f"evil.{suffix}"
        path.write_bytes(EVIL)
        with pytest.raises(InputError, match=f"weights in .*evil.{suffix}' must"):
            load_backbone("test_vit", weights=path, **SMALL)
    for name in ("run.json", "predictions.parquet"):
        (tmp_path / name).write_bytes(EVIL)
    with pytest.raises(InputError, match="must be a readable run record"):
        RunRecord.read(tmp_path)
    with pytest.raises(InputError, match="must be a readable run record"):
        read_predictions(tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(InputError, match="must be a readable predictions table"):
        read_predictions(tmp_path)
    (tmp_path / "recipe.toml").write_bytes(EVIL)
    with pytest.raises(InputError, match="must be a readable TOML file"):
        read_recipe(tmp_path / "recipe.toml")


def test_a_pickle_as_a_checkpoint_with_a_checksum_that_fits_is_not_run(tmp_path: Path) -> None:
    place = tmp_path / "experience-0000"
    place.mkdir()
    (place / "learned.safetensors").write_bytes(EVIL)
    facts = {"format": 2, "experience": 0, "sha256": hashlib.sha256(EVIL).hexdigest()}
    (place / "checkpoint.json").write_text(json.dumps(add_checksum(facts)))
    with pytest.raises(InputError, match="experience-0000 must hold tensors, got"):
        read_checkpoint(tmp_path, 0)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_zips_with_code_or_with_paths_that_lead_out_do_nothing(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    torch.save({"model": Payload()}, inside / "evil.pt")
    np.savez(inside / "evil.npz", weight=np.array([Payload()], dtype=object))
    with zipfile.ZipFile(inside / "out.npz", "w") as archive:
        archive.writestr("../../escaped.npy", b"\x93NUMPY rubbish")
    for name in ("evil.pt", "evil.npz", "out.npz"):
        with pytest.raises(InputError, match=f"weights in .*{name}' must"):
            load_backbone("test_vit", weights=inside / name, **SMALL)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "evil.npz", "evil.pt", "inside", "out.npz",
    ]  # fmt: skip


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_parquet_file_whose_types_are_pickles_runs_none(tmp_path: Path) -> None:
    """What pyarrow before 14.0.1 would have unpickled when it read the schema."""
    metadata = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": EVIL,
    }
    fields = [pa.field("image", pa.binary(), metadata=metadata), pa.field("label", pa.int64())]
    images = [picture() + bytes([index]) for index in range(8)]
    table = pa.table([images, [0, 1] * 4], schema=pa.schema(fields))
    pq.write_table(table, tmp_path / "evil.parquet")
    source = parquet_source(tmp_path / "evil.parquet")
    assert len(source.train) + len(source.test) == 8


def test_a_path_inside_a_parquet_file_is_not_followed(tmp_path: Path) -> None:
    """Public exports hold structs of bytes and path: without bytes there is no image."""
    (tmp_path / "elsewhere.png").write_bytes(picture())
    image = [{"bytes": None, "path": "../secret.png"}] * 4
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(image, kind), "label": [0, 1, 0, 1]})
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "x.parquet")
    with pytest.raises(InputError, match=r"image in row 0 of .* must not be empty, got null"):
        parquet_source(tmp_path / "data" / "x.parquet")


def test_links_that_loop_end_and_others_are_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.png").write_bytes(picture())
    for name in ("ant", "bee"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for index in range(4):
            (folder / f"{index}.png").write_bytes(picture() + bytes([index]))
        (folder / "loop").symlink_to(tmp_path / "data")
        (folder / "self.png").symlink_to(folder / "self.png")
        (folder / "out.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "data" / "circle").symlink_to(tmp_path / "data")
    source = folder_source(tmp_path / "data")
    assert source.classes == ("ant", "bee")
    assert len(source.train) + len(source.test) == 10
    assert source.reading.counts() == {
        "a link to a folder that is read already": 3,
        "a link that leads nowhere": 2,
    }


def bomb(side: int) -> bytes:
    """A PNG file of a few kilobytes whose header promises side x side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)

    header = side.to_bytes(4) + side.to_bytes(4) + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes(1_000_000), 9)
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [14_000, 100_000, 2**31 - 1])
def test_a_picture_that_would_fill_the_memory_is_refused(side: int) -> None:
    with pytest.raises(InputError, match="image bomb must be readable, got: .*"):
        decode_image(bomb(side), "bomb")


@pytest.mark.parametrize("text", ["x = " + "[" * 100_000, "x = " + "{a=" * 100_000, "\0", "\ud800"])
def test_recipes_that_would_break_a_parser_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match="must be a readable TOML file"):
        batch.expand({}, recipe=path, seeds=1, settings=[])


def test_records_that_would_break_a_parser_are_refused(tmp_path: Path) -> None:
    deep = "[" * 200_000
    (tmp_path / "run.json").write_text(deep)
    with pytest.raises(InputError, match="must be a readable run record"):
        RunRecord.read(tmp_path)
    (tmp_path / "run.json").unlink()
    (tmp_path / "events.jsonl").write_text(deep + "\n{}\n")
    with pytest.raises(InputError, match="line 1 must be an event"):
        read_events(tmp_path)


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "..", "a/../../b", "a\0b", "~/evil"])
def test_a_name_does_not_lead_a_run_out_of_its_folder(name: str) -> None:
    grey = np.stack([np.full((8, 8), shade) for shade in (0.1, 0.4, 0.7, 0.9)])
    source = array_source(name, (grey, [0, 0, 1, 1]), (grey, [0, 0, 1, 1]))
    recipe = {"strategy": "simplecil", "increment": 1, "image_size": 16, "backbone": "test_vit"}
    record = prepare(RunConfig.parse({**recipe, "weights": "random"}), source=source).record
    out = Path("/runs").resolve()
    place = (out / record.directory).resolve()
    assert place.is_relative_to(out)
    assert len(place.relative_to(out).parts) == 3
