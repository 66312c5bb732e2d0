"""A run directory as bytes, an archive to carry it between machines that share no disk."""

import io
import tarfile
from contextlib import suppress
from pathlib import Path

from cl_adapters.benchmarks.running.run_folder import only_writer
from cl_adapters.errors import InputError
from cl_adapters.records.files import atomic_path
from cl_adapters.records.integrity import announce_tables
from cl_adapters.records.run_record import RunRecord

__all__ = ["pack", "unpack"]

_RECORD = "run.json"  # what counts; a directory is written with it last


def pack(folder: Path) -> bytes:
    """Returns a run directory between two experiences, or one that nobody writes to."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in _names(folder):
            with suppress(FileNotFoundError):  # whoever wrote it was thought to be lost
                archive.add(folder / name, name)
    return data.getvalue()


def unpack(data: bytes, folder: Path) -> None:
    """Writes a run directory that was packed, in place of what is there.

    At any moment the folder is one that a run can go on from.

    Args:
        data: What `pack` returned.
        folder: The run directory; made if need be.

    Raises:
        InputError: If another process writes to it, or the bytes hold anything but its files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with only_writer(folder), tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
        for member in members:  # tarfile's own filters came with Python 3.11.4
            place = (folder / member.name).resolve()
            if not (member.isfile() and place.is_relative_to(folder.resolve())):
                raise InputError(
                    f"an archive must hold files of its run alone, got {member.name!r}"
                )
        _announce(folder, archive)
        for member in members:
            with atomic_path(folder / member.name) as path:
                path.write_bytes(_content(archive, member.name))
        for name in set(_names(folder)) - {each.name for each in members}:
            (folder / name).unlink()
        for place in sorted(folder.rglob("*"), reverse=True):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()


def _announce(folder: Path, archive: tarfile.TarFile) -> None:
    """Lets the record that is there know the tables that come, and the one that comes is last."""
    names = [name for name in archive.getnames() if name.endswith(".parquet")]
    with suppress(InputError):  # there is none, or none that is sound
        present = RunRecord.read(folder)
        announce_tables(folder, present, {name: _content(archive, name) for name in names})


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    return b"" if file is None else file.read()


def _names(folder: Path) -> list[str]:
    """Returns the files of a run directory, the record last."""
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    kept = [each for each in found if each != ".lock" and not each.endswith(".tmp")]
    return sorted(kept, key=lambda name: (name == _RECORD, name))
