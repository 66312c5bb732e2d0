"""Random damages to the files of a run directory: of bits, of bytes, of lines, of rows."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["TABLES", "damage"]

TABLES: Final = ("predictions.parquet", "retrieval.parquet", "examples.parquet")

Damage = Callable[[Path, random.Random], None]


def damage(path: Path, drawn: random.Random) -> str:
    """Damages a file in a random way that changes its bytes; returns which."""
    before = path.read_bytes()
    while True:
        kind = drawn.choice(KINDS[path.suffix])
        kind(path, drawn)
        if path.read_bytes() != before:
            return f"{kind.__name__} of {path.name}"


def _flip(path: Path, drawn: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
    path.write_bytes(data)


def _flip_in_footer(path: Path, drawn: random.Random) -> None:
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[-8:-4], "little") + 8
    data[len(data) - 1 - drawn.randrange(length)] ^= 1 << drawn.randrange(8)
    path.write_bytes(data)


def _cut(path: Path, drawn: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: drawn.randrange(len(data))])


def _double(path: Path, drawn: random.Random) -> None:
    data = path.read_bytes()
    start, end = sorted(drawn.randrange(len(data) + 1) for _ in range(2))
    path.write_bytes(data[:end] + data[start:end] + data[end:])


def _digit(path: Path, drawn: random.Random) -> None:
    data = bytearray(path.read_bytes())
    places = [place for place, value in enumerate(data) if chr(value).isdigit() and value < 128]
    data[drawn.choice(places)] = ord(drawn.choice("0123456789"))
    path.write_bytes(data)


def _lines(path: Path, drawn: random.Random) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    one, two = drawn.randrange(len(lines)), drawn.randrange(len(lines))
    changed = {
        "drop": [*lines[:one], *lines[one + 1 :]],
        "double": [*lines[: one + 1], *lines[one:]],
        "swap": [lines[{one: two, two: one}.get(place, place)] for place in range(len(lines))],
        "half": lines[: len(lines) // 2],
    }
    path.write_bytes(b"".join(changed[drawn.choice(sorted(changed))]))


def _rows(path: Path, drawn: random.Random) -> None:
    table = pq.read_table(pa.BufferReader(path.read_bytes()))
    kept = [row for row in range(len(table)) if drawn.random() < 0.8]
    _write(path, table.take(pa.array(kept, pa.int64())))


def _value(path: Path, drawn: random.Random) -> None:
    table = pq.read_table(pa.BufferReader(path.read_bytes()))
    name = drawn.choice(["target", "prediction", "sample"])
    values = table[name].to_pylist()
    values[drawn.randrange(len(values))] = drawn.randrange(6)
    place = table.schema.get_field_index(name)
    _write(path, table.set_column(place, table.schema.field(place), pa.array(values, pa.int32())))


def _write(path: Path, table: pa.Table) -> None:
    with path.open("wb") as file:
        pq.write_table(table, file, compression="zstd")


KINDS: Final[dict[str, tuple[Damage, ...]]] = {
    ".parquet": (_flip, _flip_in_footer, _cut, _double, _rows, _value),
    ".jsonl": (_flip, _cut, _double, _digit, _lines),
    ".json": (_flip, _cut, _double, _digit),
    ".safetensors": (_flip, _cut, _double),
}
