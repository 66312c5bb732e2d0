"""What is to know about images before a run: what stops it, distorts it or is passed over."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from cl_adapters.benchmarks.data.images import natural_key
from cl_adapters.benchmarks.data.inspection import Finding, Level, Look, images_by_class
from cl_adapters.benchmarks.data.sources import SUFFIXES
from cl_adapters.benchmarks.data.transforms import MAX_RATIO

__all__ = ["find_faults", "passed_over", "refused", "worst_first"]

# Fewer images than these and the accuracy of a class says little.
TINY_TRAIN: Final = 5
TINY_TEST: Final = 2
SMALL_SIDE: Final = 8
# Files that people take for images and that no reader here opens.
FOREIGN: Final = (
    ".arw", ".avif", ".cr2", ".dng", ".heic", ".heif", ".jfif", ".jp2", ".nef", ".psd", ".svg",
)  # fmt: skip

# What a file is that a reader here would open and does not.
OUTSIDE: Final = "beside the class folders, or links to elsewhere"


def find_faults(looks: Sequence[Look], classes: Sequence[str], refusal: str) -> list[Finding]:
    """Returns what is to know of some images.

    Args:
        looks: What was seen of each image.
        classes: Names of the classes, empty ones too.
        refusal: The sentence that a run would end with; empty if there is none.
    """
    return [*_stopping(looks, classes, refusal), *_distorting(looks, classes), *_noted(looks)]


def worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Returns findings by level, in their order within each."""
    order: tuple[Level, ...] = ("stops", "distorts", "note")
    return tuple(sorted(findings, key=lambda finding: order.index(finding.level)))


def refused(sentence: str) -> Finding:
    """Returns what there is to say of data that cannot be opened, given the sentence for it."""
    return Finding(
        level="stops", what="not usable as it is", examples=(sentence,), action="ends with this"
    )


def _stopping(looks: Sequence[Look], classes: Sequence[str], refusal: str) -> Iterator[Finding]:
    damaged = tuple(f"{look.name} ({_reason(look)})" for look in looks if look.error)
    if damaged:
        yield Finding(
            level="stops", what=f"{len(damaged)} unreadable images", examples=damaged,
            action="ends at the first of them, before anything is written",
        )  # fmt: skip
    totals = images_by_class(looks, classes)
    empty = tuple(name for name in classes if not totals[name])
    if empty:
        yield Finding(
            level="stops", what=f"{len(empty)} empty classes", examples=empty,
            action="ends: each class must have images in train and in test",
        )  # fmt: skip
    for split in ("train", "test"):
        counts = Counter(look.label for look in looks if look.split == split)
        lacking = tuple(name for name in classes if totals[name] and not counts[name])
        if lacking and any(look.split for look in looks):
            yield Finding(
                level="stops", what=f"{len(lacking)} classes without {split} images",
                examples=lacking, action="ends: each class must have images in train and in test",
            )  # fmt: skip
    single = tuple(name for name in classes if totals[name] == 1)
    if single and not any(look.split for look in looks):
        yield Finding(
            level="stops", what=f"{len(single)} classes of one image", examples=single,
            action="ends: a class must have two images to be split into train and test",
        )  # fmt: skip
    if refusal:
        yield refused(refusal)


def _reason(look: Look) -> str:
    # The sentence without the name, which stands before it.
    return look.error.rpartition(f"{look.name!r} ")[2]


def _distorting(looks: Sequence[Look], classes: Sequence[str]) -> Iterator[Finding]:
    for split, least in (("train", TINY_TRAIN), ("test", TINY_TEST)):
        counts = Counter(look.label for look in looks if look.split == split)
        tiny = tuple(f"{name} ({counts[name]})" for name in classes if 0 < counts[name] < least)
        if tiny:
            yield Finding(
                level="distorts",
                what=f"{len(tiny)} classes with fewer than {least} {split} images",
                examples=tiny,
                action="uses them as they are; their accuracy says little",
            )
    copies = _copies(looks)
    across = tuple(_pair(group) for group in copies if len({look.split for look in group}) > 1)
    if across:
        yield Finding(
            level="distorts", what=f"{len(across)} images both in train and in test, by pixels",
            examples=across, action="uses both; accuracy comes out too high",
        )  # fmt: skip
    torn = tuple(_pair(group) for group in copies if len({look.label for look in group}) > 1)
    if torn:
        yield Finding(
            level="distorts", what=f"{len(torn)} images in more than one class, by pixels",
            examples=torn, action="uses each with its own label; one of them is wrong",
        )  # fmt: skip


def _noted(looks: Sequence[Look]) -> Iterator[Finding]:
    copies = [_pair(group) for group in _copies(looks) if _is_one_place(group)]
    kinds: tuple[tuple[str, Sequence[str], str], ...] = (
        (
            "images with a copy in the same class and set, by pixels",
            copies,
            "uses each; they weigh more",
        ),
        (
            f"images with a side under {SMALL_SIDE} pixels",
            _names(looks, lambda look: not look.error and _short(look) < SMALL_SIDE),
            "enlarges them to the network's input",
        ),
        (
            f"images more than {MAX_RATIO} times as long as wide",
            _names(looks, lambda look: _long(look) > MAX_RATIO * _short(look)),
            "keeps the middle only",
        ),
        *_noted_modes(looks),
    )
    for what, names, action in kinds:
        if names:
            examples = tuple(names)
            yield Finding(
                level="note", what=f"{len(names)} {what}", examples=examples, action=action
            )


def _noted_modes(looks: Sequence[Look]) -> Iterator[tuple[str, Sequence[str], str]]:
    for what, modes, action in (
        ("grey or palette images", ("1", "L", "P"), "turns them into RGB"),
        ("images with an alpha channel", ("LA", "RGBA"), "drops it"),
    ):
        yield what, [look.name for look in looks if look.mode in modes], action


def _names(looks: Sequence[Look], holds: Callable[[Look], bool]) -> list[str]:
    return [look.name for look in looks if holds(look)]


def passed_over(root: Path, seen: Collection[str]) -> Iterator[Finding]:
    """Yields what lies in a folder and is no image of a run, by kind."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for where, folders, files in os.walk(root):
        linked = [name for name in folders if Path(where, name).is_symlink()]
        hidden = [name for name in folders if name.startswith(".")]
        folders[:] = sorted(set(folders) - set(hidden))
        for name in [*files, *linked, *hidden]:
            path = Path(where, name).relative_to(root).as_posix()
            if path not in seen:
                kinds[_kind(Path(where, name))].append(path)
    for kind, names in sorted(kinds.items()):
        yield Finding(
            level="distorts" if kind in (OUTSIDE, *FOREIGN) else "note",
            what=f"{len(names)} files that are not read: {kind}",
            examples=tuple(sorted(names, key=natural_key)),
            action=f"passes over them; it reads {' '.join(SUFFIXES)} in class folders",
        )


def _kind(path: Path) -> str:
    is_image = path.suffix.lower() in SUFFIXES or path.is_dir()
    if is_image and not path.name.startswith("."):
        return OUTSIDE
    return path.suffix.lower() or path.name


def _copies(looks: Sequence[Look]) -> list[list[Look]]:
    groups: dict[bytes, list[Look]] = defaultdict(list)
    for look in looks:
        if not look.error:
            groups[look.digest].append(look)
    return [group for group in groups.values() if len(group) > 1]


def _is_one_place(group: Sequence[Look]) -> bool:
    return len({(look.split, look.label) for look in group}) == 1


def _pair(group: Sequence[Look]) -> str:
    # The first of each set, so that a copy across sets is shown as such.
    first, *others = group
    other = next((look for look in others if look.split != first.split), others[0])
    return f"{first.name} = {other.name}"


def _short(look: Look) -> int:
    return min(look.width, look.height)


def _long(look: Look) -> int:
    return max(look.width, look.height)
