"""Which layout a folder of images has, of the few that are understood.

    class folders          photos/<class>/…, split by content
    train and test         photos/Training/<class>/…, photos/Testing/<class>/…; any common spelling
    train and validation   the same; validation serves as the test set where there is no other

Each of them may lie deeper (`archive/Images/<class>`, `seg_train/seg_train/<class>`), and classes
may lie below super-classes where the user says so (`class_depth`). A validation set beside a test
set is not used, unless the user says so (`test_set`). What has none of these layouts is refused
with the reading that would be right.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cl_adapters.benchmarks.data.reading import (
    AS_IT_IS,
    BESIDE,
    OTHER_SPLIT,
    LeftOut,
    ReadOptions,
    refuse_options,
)
from cl_adapters.benchmarks.data.split_names import Role, normal_name, role_in_name, roles_of
from cl_adapters.benchmarks.data.walking import files_beside, has_images, inner_folders
from cl_adapters.errors import InputError, listed

__all__ = ["ClassFolder", "Layout", "Part", "class_folders", "find_layout"]

_DEEPEST: Final = 3  # folders around the classes that hold nothing else
_PREFIX: Final[dict[Role, str]] = {"train": "train", "test": "test", "valid": "validation"}


@dataclass(frozen=True)
class Part:
    """A folder of classes.

    Attributes:
        split: `train` or `test`; empty if it is to be split.
        folder: Where it lies.
    """

    split: str
    folder: Path


@dataclass(frozen=True)
class Layout:
    """How a folder of images is read.

    Attributes:
        root: The folder.
        parts: One folder of classes to split, or those of the train and the test set.
        depth: How many folders below a part the classes lie.
        said: The layout in words.
        left: What lies outside the parts.
    """

    root: Path
    parts: tuple[Part, ...]
    depth: int
    said: str
    left: tuple[LeftOut, ...]


@dataclass(frozen=True)
class ClassFolder:
    """A class: its name, its folder relative to that of all classes, and its domain if it has one.

    Several folders may hold the images of one class, each those of a domain.
    """

    name: str
    folder: str
    domain: str = ""


def find_layout(root: Path, options: ReadOptions = AS_IT_IS) -> Layout:
    """Returns the layout of a folder.

    Args:
        root: The folder.
        options: What the user says of it.

    Raises:
        InputError: If it has no layout that is understood.
        OSError: If a folder cannot be read.
    """
    base = _unwrapped(root, options)
    roles = _split_folders(base)
    depth = (options.class_depth or 1) + bool(options.domain_folders)
    deeper = "" if depth == 1 else f", classes {depth} folders down"
    deeper += " in those of their domains" if options.domain_folders else ""
    if not roles:
        refuse_options(options, ("test_set",), f"class folders without a split in {str(root)!r}")
        said = f"class folders{_inside(root, base)}{deeper}, split by content"
        return Layout(root, (Part("", base),), depth, said, _around(root, base, [base], []))
    train, test = _chosen(root, base, roles, options)
    parts = [Part(split, _unwrapped(base / name, options)) for split, name in
             (("train", train), ("test", test))]  # fmt: skip
    names = [part.folder.relative_to(root).as_posix() for part in parts]
    said = f"train in {names[0]!r}, test in {names[1]!r}{deeper}"
    unused = [name for name in roles if name not in (train, test)]
    said += f"; {listed(unused)} beside them is not used (`test_set` chooses)" if unused else ""
    left = _around(root, base, [part.folder for part in parts], unused)
    return Layout(root, tuple(parts), depth, said, left)


def class_folders(
    part: Part, depth: int, *, domain_folders: bool | None = None
) -> list[ClassFolder]:
    """Returns the classes of a part in natural order; below super-classes as `animal/ant`.

    Args:
        part: The folder of classes, or of domains.
        depth: How many folders down the classes lie.
        domain_folders: Whether the uppermost of these are domains: `2026-01/ant` is class `ant`.

    Raises:
        OSError: If a folder cannot be read.
    """
    found = [""]
    for _ in range(depth):
        found = [
            f"{above}/{name}".lstrip("/")
            for above in found
            for name in inner_folders(part.folder / above)
        ]
    if not domain_folders:
        return [ClassFolder(normal_name(folder), folder) for folder in found]
    parts = [(normal_name(folder).partition("/"), folder) for folder in found]
    return [ClassFolder(name, folder, domain) for (domain, _, name), folder in parts]


def _unwrapped(folder: Path, options: ReadOptions) -> Path:
    """Returns the folder inside folders that hold nothing but one folder of folders."""
    for _ in range(_DEEPEST):
        names = inner_folders(folder)
        if len(names) != 1 or _own_role(names[0]) not in (None, _own_role(folder.name)):
            return folder
        inner = folder / names[0]
        is_doubled = names[0].lower() == folder.name.lower()
        is_told = options.class_depth is not None or options.domain_folders
        if is_told and not is_doubled:
            return folder
        if has_images(folder) or has_images(inner) or not inner_folders(inner):
            return folder
        folder = inner
    return folder


def _own_role(name: str) -> Role | None:
    role, words = role_in_name(name)
    return None if words else role


def _split_folders(base: Path) -> dict[str, Role]:
    roles = roles_of(inner_folders(base))
    told = set(roles.values())
    # Any other `train` is a class: CIFAR-100 has one.
    is_split = {"train"} < told or any(inner_folders(base / name) for name in roles)
    return roles if is_split else {}


def _chosen(
    root: Path, base: Path, roles: dict[str, Role], options: ReadOptions
) -> tuple[str, str]:
    """Returns the names of the train and the test folder."""
    by_role = {role: [name for name in roles if roles[name] == role] for role in _PREFIX}
    for role, names in by_role.items():
        if len(names) > 1:
            raise InputError(
                f"image folder {str(root)!r} must hold one {_PREFIX[role]} folder, got "
                f"{listed(names)}"
            )
    tests = by_role["test"] + by_role["valid"]
    if not by_role["train"] or not tests:
        raise InputError(
            f"image folder {str(root)!r} must hold train/ and one of test/, val/ and validation/ "
            "(a folder of classes that is given itself is split), got " + ", ".join(roles)
        )
    if options.test_set is not None:
        wanted = by_role["valid" if options.test_set == "validation" else "test"]
        if not wanted:
            raise InputError(
                f"image folder {str(root)!r} must hold the {options.test_set} folder that "
                f"`test_set` names, got {', '.join(roles)}"
            )
        return by_role["train"][0], wanted[0]
    # A test set without class folders has no labels, as in competitions.
    labelled = [name for name in tests if inner_folders(base / name)] or tests
    return by_role["train"][0], labelled[0]


def _inside(root: Path, base: Path) -> str:
    return f" in {base.relative_to(root).as_posix()!r}" if base != root else ""


def _around(root: Path, base: Path, folders: list[Path], unused: list[str]) -> tuple[LeftOut, ...]:
    """Returns what lies in the data's folder outside folders of classes."""
    if folders == [root]:
        return ()
    left = files_beside(root, [folder.relative_to(root).as_posix() for folder in folders])
    others = [(base / name).relative_to(root) for name in unused]
    return tuple(
        LeftOut(each.path, OTHER_SPLIT)
        if each.reason == BESIDE and any(Path(each.path).is_relative_to(name) for name in others)
        else each
        for each in left
    )
