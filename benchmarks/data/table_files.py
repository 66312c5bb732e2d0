"""Which parquet files make up a table, and which of them are to learn from.

    one.parquet                          with a column `split`, or to be split
    photos/train-*.parquet, test-*.parquet
    photos/data/train-*.parquet, …       the root of a repository
    photos/train/0000.parquet, photos/test/0000.parquet

A shard that lacks its others (`train-00000-of-00002`) is refused, and so is a folder with more than
one set of tables.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cl_adapters.benchmarks.data.images import natural_key
from cl_adapters.benchmarks.data.reading import counted
from cl_adapters.benchmarks.data.split_names import role_in_name
from cl_adapters.benchmarks.data.walking import SUFFIXES, inner_folders
from cl_adapters.errors import InputError, listed

__all__ = ["TableFile", "check_alone", "table_files"]

_DEEPEST: Final = 3
_MOST_FOLDERS: Final = 64  # of a folder; more are class folders
_SHARD: Final = re.compile(r"^(.*?)-?(\d+)-of-(\d+)$")
_WORDS: Final = re.compile(r"(?<![a-z])(train|test|valid|val)")


@dataclass(frozen=True)
class TableFile:
    """A parquet file and its split: `train`, `test`, `valid` or `val`."""

    path: Path
    split: str


def check_alone(path: Path) -> None:
    """Refuses a file that is a part of a table.

    Raises:
        InputError: If its name says so.
    """
    shard = _SHARD.match(path.stem)
    if shard and int(shard[3]) > 1:
        raise InputError(
            f"{str(path)!r} is one of {int(shard[3])} parts of a table; give the folder that holds "
            "all of them"
        )


def table_files(root: Path) -> list[TableFile]:
    """Returns the parquet files of a folder in natural order; none if it holds no tables.

    Raises:
        InputError: If a file does not say its split, parts are missing, or there are several sets.
        OSError: If a folder cannot be read.
    """
    direct = sorted(root.glob("*.parquet"), key=lambda path: natural_key(path.name))
    if direct:
        files = [(path, _split_in(path)) for path in direct]
    else:
        found = sorted(_below(root, 1), key=lambda path: natural_key(path.as_posix()))
        files = [(path, _split_in(path) or _split_above(path, root)) for path in found]
    for path, split in files:
        if split is None:
            raise InputError(
                f"the name of {str(path)!r} must say whether it is train, test or validation"
            )
    tables = [TableFile(path, split) for path, split in files if split is not None]
    _check_one_set(root, tables)
    _check_shards(tables)
    return tables


def _below(folder: Path, depth: int) -> Iterator[Path]:
    names = inner_folders(folder)
    if depth > _DEEPEST or len(names) > _MOST_FOLDERS:
        return
    for name in names:
        files: list[Path] = []
        for path in (folder / name).iterdir():
            if path.suffix.lower() in SUFFIXES:  # a folder of images, maybe a large one
                files = []
                break
            if path.suffix.lower() == ".parquet" and path.is_file():
                files.append(path)
        else:
            yield from _below(folder / name, depth + 1)
        yield from files


def _split_in(path: Path) -> str | None:
    words = set(_WORDS.findall(path.stem.lower()))
    return words.pop() if len(words) == 1 else None


def _split_above(path: Path, root: Path) -> str | None:
    for part in reversed(path.parent.relative_to(root).parts):
        role = role_in_name(part)[0]
        if role is not None:
            return role
    return None


def _check_one_set(root: Path, tables: Sequence[TableFile]) -> None:
    sets = {
        path.parent if _split_in(path) or role_in_name(path.parent.name)[0] is None
        else path.parent.parent
        for path in (table.path for table in tables)
    }  # fmt: skip
    if len(sets) > 1:
        names = sorted(each.relative_to(root).as_posix() for each in sets)
        raise InputError(
            f"{str(root)!r} must hold one set of tables, got {counted(len(names), 'folder')} of "
            f"them: {listed(names)}; give one of these"
        )


def _check_shards(tables: Sequence[TableFile]) -> None:
    parts: dict[tuple[Path, str, int], set[int]] = defaultdict(set)
    for table in tables:
        shard = _SHARD.match(table.path.stem)
        if shard:
            key = (table.path.parent, shard[1], int(shard[3]))
            parts[key].add(int(shard[2]))
    for (folder, name, count), found in parts.items():
        missing = [number for number in range(min(count, len(found) + 1)) if number not in found]
        if missing:
            raise InputError(
                f"{str(folder)!r} must hold all {count} parts of {name!r}, lacks part {missing[0]}"
            )
