"""What lies in a folder: images, and files that are none, each with its reason.

Links are followed, to files and to folders alike, wherever they lead. A link to a folder is left
out where that folder is being read already: one that holds the link's own class, lies in it, or was
entered before. So loops of links end.
"""

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Final, Literal

from cl_adapters.benchmarks.data.images import natural_key
from cl_adapters.benchmarks.data.reading import (
    BESIDE,
    BROKEN,
    FOREIGN,
    HIDDEN,
    LITTER,
    LOOP,
    NO_IMAGE,
    SPECIAL,
    LeftOut,
)
from cl_adapters.images.decoding import SUFFIXES

__all__ = [
    "FOREIGN_SUFFIXES",
    "SUFFIXES",
    "Walk",
    "files_below",
    "files_beside",
    "has_images",
    "inner_folders",
]

# Files that people take for images, and that are left out unless they are among `SUFFIXES`.
FOREIGN_SUFFIXES: Final = (
    ".arw", ".avif", ".cr2", ".dng", ".heic", ".heif", ".j2k", ".jp2", ".jpx", ".jxl", ".nef",
    ".psd", ".svg",
)  # fmt: skip
# Folders that archives, file servers and Python leave behind; no class is called so.
LITTER_FOLDERS: Final = frozenset(
    ("__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN")
)


@dataclass
class Walk:
    """What lies at or below one folder, as paths relative to it, in natural order.

    Attributes:
        images: Images of a run.
        left: What is left out.
    """

    images: list[str] = field(default_factory=list)
    left: list[LeftOut] = field(default_factory=list)


def files_below(folder: Path) -> Walk:
    """Lists what lies at or below a class folder.

    Raises:
        OSError: If a folder cannot be read.
    """
    walk = Walk()
    entered = {os.path.realpath(folder)}
    for path, reason in _entries(str(folder), "", entered):
        if reason:
            walk.left.append(LeftOut(path, reason))
        else:
            walk.images.append(path)
    walk.images.sort(key=natural_key)
    walk.left.sort(key=lambda each: natural_key(each.path))
    return walk


def inner_folders(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder that may hold images, in natural order.

    Hidden ones and leftovers of programs are none, nor is a link to a folder that holds this one.

    Raises:
        OSError: If the folder cannot be read.
    """
    above = {os.path.realpath(folder)}
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if not _is_litter(entry.name)
            and _kind(entry) == "folder"
            and not (entry.is_symlink() and _holds_any(os.path.realpath(entry.path), above))
        ]
    return sorted(names, key=natural_key)


def has_images(folder: Path) -> bool:
    """Says whether images lie in a folder itself."""
    with os.scandir(folder) as entries:
        return any(not _reason(entry) for entry in entries if _kind(entry) == "file")


def files_beside(folder: Path, taken: Collection[str]) -> list[LeftOut]:
    """Lists what lies below a folder but not in some of the folders there.

    Args:
        folder: The folder.
        taken: Folders below it that are read, relative to it.

    Raises:
        OSError: If a folder cannot be read.
    """
    entered = {os.path.realpath(folder)}
    left = [
        LeftOut(path, reason or BESIDE)
        for path, reason in _entries(str(folder), "", entered, frozenset(taken))
    ]
    return sorted(left, key=lambda each: natural_key(each.path))


def _entries(
    folder: str, below: str, entered: set[str], taken: frozenset[str] = frozenset()
) -> Iterator[tuple[str, str]]:
    """Yields files and why they are no images; folders in `taken` are not entered."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)  # so that links are met in one order
    for entry in entries:
        place = f"{below}{entry.name}"
        if _kind(entry) != "folder":
            yield place, _reason(entry)
        elif place in taken:
            continue
        elif _is_litter(entry.name):
            reason = HIDDEN if entry.name.startswith(".") else LITTER
            yield from ((each, reason) for each in _files_in(entry.path, place))
        elif not entry.is_symlink():
            yield from _entries(entry.path, f"{place}/", entered, taken)
        else:
            real = os.path.realpath(entry.path)
            if _holds_any(real, entered) or any(_holds_any(each, {real}) for each in entered):
                yield place, LOOP
            else:
                entered.add(real)
                yield from _entries(entry.path, f"{place}/", entered, taken)


def _files_in(folder: str, place: str) -> Iterator[str]:
    # All of it for the count, without entering links.
    for where, _, names in os.walk(folder):
        inner = os.path.relpath(where, folder).replace(os.sep, "/")
        for name in names:
            yield f"{place}/{name}" if inner == "." else f"{place}/{inner}/{name}"


def _holds_any(folder: str, others: Collection[str]) -> bool:
    inside = folder.rstrip(os.sep) + os.sep
    return any(other == folder or other.startswith(inside) for other in others)


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name in LITTER_FOLDERS


def _kind(entry: "os.DirEntry[str]") -> Literal["file", "folder", "nowhere", "other"]:
    """Returns what an entry is or, if it is a link, leads to; asks the disk for links only."""
    try:
        mode = entry.stat().st_mode if entry.is_symlink() else 0
    except OSError:  # nothing there, a loop, or not to be seen by us
        return "nowhere"
    if stat.S_ISDIR(mode) or (not mode and entry.is_dir()):
        return "folder"
    return "file" if stat.S_ISREG(mode) or (not mode and entry.is_file()) else "other"


def _reason(entry: "os.DirEntry[str]") -> str:
    suffix = PurePath(entry.name).suffix.lower()
    if entry.name.startswith("."):
        return HIDDEN
    other = {"nowhere": BROKEN, "other": SPECIAL}.get(_kind(entry), "")
    if other or suffix in SUFFIXES:
        return other
    return FOREIGN if suffix in FOREIGN_SUFFIXES else NO_IMAGE
