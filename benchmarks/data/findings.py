"""What is to know about images before a run: what stops it, distorts it or is passed over."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cl_adapters.benchmarks.data.images import natural_key
from cl_adapters.benchmarks.data.inspection import Finding, Level, Look, images_by_class
from cl_adapters.benchmarks.data.reading import LOSSES, LeftOut, counted
from cl_adapters.images.decoding import MAX_RATIO, NOTES

__all__ = ["find_faults", "left_aside", "refused", "worst_first"]

# Fewer images than these and the accuracy of a class says little.
TINY_TRAIN: Final = 5
TINY_TEST: Final = 2
SMALL_SIDE: Final = 8


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
            level="stops", what=counted(len(damaged), "unreadable image"), examples=damaged,
            action="ends at the first of them, before anything is written",
        )  # fmt: skip
    totals = images_by_class(looks, classes)
    empty = tuple(name for name in classes if not totals[name])
    if empty:
        yield Finding(
            level="stops", what=counted(len(empty), "empty class", "empty classes"), examples=empty,
            action="ends: each class must have images in train and in test",
        )  # fmt: skip
    for split in ("train", "test"):
        counts = Counter(look.label for look in looks if look.split == split)
        lacking = tuple(name for name in classes if totals[name] and not counts[name])
        if lacking and any(look.split for look in looks):
            yield Finding(
                level="stops", what=f"{_classes(lacking)} without {split} images",
                examples=lacking, action="ends: each class must have images in train and in test",
            )  # fmt: skip
    single = tuple(name for name in classes if totals[name] == 1)
    if single and not any(look.split for look in looks):
        yield Finding(
            level="stops", what=f"{_classes(single)} of one image", examples=single,
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
                what=f"{_classes(tiny)} with fewer than {least} {split} images",
                examples=tiny,
                action="uses them as they are; their accuracy says little",
            )
    copies = _copies(looks)
    across = tuple(_pair(group) for group in copies if len({look.split for look in group}) > 1)
    if across:
        yield Finding(
            level="distorts", what=f"{_images(across)} both in train and in test, by pixels",
            examples=across, action="uses both; accuracy comes out too high",
        )  # fmt: skip
    torn = tuple(_pair(group) for group in copies if len({look.label for look in group}) > 1)
    if torn:
        yield Finding(
            level="distorts", what=f"{_images(torn)} in more than one class, by pixels",
            examples=torn, action="uses each with its own label; one of them is wrong",
        )  # fmt: skip


def _noted(looks: Sequence[Look]) -> Iterator[Finding]:
    copies = [_pair(group) for group in _copies(looks) if _is_one_place(group)]
    kinds: tuple[tuple[str, Sequence[str], str], ...] = (
        (
            "with a copy in the same class and set, by pixels",
            copies,
            "uses each; they weigh more",
        ),
        (
            f"with a side under {SMALL_SIDE} pixels",
            _names(looks, lambda look: not look.error and _short(look) < SMALL_SIDE),
            "enlarges them to the network's input",
        ),
        (
            f"more than {MAX_RATIO} times as long as wide",
            _names(looks, lambda look: _long(look) > MAX_RATIO * _short(look)),
            "keeps the middle only",
        ),
        *_noted_modes(looks),
    )
    for what, names, action in kinds:
        if names:
            examples = tuple(names)
            yield Finding(
                level="note", what=f"{_images(names)} {what}", examples=examples, action=action
            )


def _noted_modes(looks: Sequence[Look]) -> Iterator[tuple[str, Sequence[str], str]]:
    for what, modes, action in (
        ("grey or with a palette", ("1", "L", "P"), "turns them into RGB"),
        ("with an alpha channel", ("LA", "RGBA"), "drops it"),
    ):
        yield what, [look.name for look in looks if look.mode in modes], action
    for place, note in enumerate(NOTES):
        what, _, action = note.partition(", ")
        yield what, [look.name for look in looks if look.notes >> place & 1], action


def _names(looks: Sequence[Look], holds: Callable[[Look], bool]) -> list[str]:
    return [look.name for look in looks if holds(look)]


def left_aside(left: Sequence[LeftOut]) -> Iterator[Finding]:
    """Yields what is no image of a run, by reason; what a user may miss distorts."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for each in left:
        kinds[each.reason].append(each.path)
    for reason, names in sorted(kinds.items()):
        them = "it" if len(names) == 1 else "them"
        yield Finding(
            level="distorts" if reason in LOSSES else "note",
            what=f"{counted(len(names), 'file')} left out: {reason}",
            examples=tuple(sorted(names, key=natural_key)),
            action=f"passes over {them} and counts {them}",
        )


def _images(names: Sequence[str]) -> str:
    return counted(len(names), "image")


def _classes(names: Sequence[str]) -> str:
    return counted(len(names), "class", "classes")


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
