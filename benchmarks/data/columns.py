"""Which columns of a table hold images, labels, splits and domains."""

from collections.abc import Mapping, Sequence
from typing import Final

from cl_adapters.benchmarks.data.reading import ReadOptions
from cl_adapters.errors import InputError, listed

__all__ = ["DOMAIN", "SPLIT", "find_columns", "find_picture_columns"]

SPLIT: Final = "split"
DOMAIN: Final = "domain"
# The first that is there is taken; of the others, the only one that is there.
_IMAGES: Final = (("image", "img"), ("jpg", "jpeg", "png", "webp", "picture", "photo"))
_LABELS: Final = (
    ("label", "fine_label", "labels"),
    ("coarse_label", "target", "class", "category", "cls", "y"),
)
FILES: Final = (
    ("file_name", "filename", "file", "path", "image", "img", "image_path", "image_id", "id"),
    ("image_name", "filepath", "file_path", "filepaths", "images"),
)


def find_columns(
    names: Sequence[str],
    options: ReadOptions,
    table: str,
    *,
    likely: Mapping[str, Sequence[str]],
    are_files: bool = False,
) -> tuple[str, str]:
    """Returns the names of the columns of images and of labels.

    Args:
        names: Names of the table's columns.
        options: Which the user named.
        table: How to call the table in a message.
        likely: Under `image` and `label` the columns whose type would fit.
        are_files: Whether the images are named, not held.

    Raises:
        InputError: If there is no such column, or more than one.
    """
    images = FILES if are_files else _IMAGES
    return (
        _find(names, "image_column", options.image_column, images, table, likely["image"]),
        _find(names, "label_column", options.label_column, _LABELS, table, likely["label"]),
    )


def find_picture_columns(
    names: Sequence[str], options: ReadOptions, table: str, *, likely: Sequence[str]
) -> tuple[str, str | None]:
    """Returns the column of images and that of labels, if there is one, of a table to be answered.

    Args:
        names: As for `find_columns`.
        options: As for `find_columns`.
        table: As for `find_columns`.
        likely: The columns whose type would fit images.

    Raises:
        InputError: If there is no column of images, or not the one of labels that was named.
    """
    image = _find(names, "image_column", options.image_column, _IMAGES, table, likely)
    if options.label_column is None and not any(set(each) & set(names) for each in _LABELS):
        return image, None
    return image, _find(names, "label_column", options.label_column, _LABELS, table, ())


def _find(
    names: Sequence[str],
    option: str,
    given: str | None,
    known: tuple[Sequence[str], Sequence[str]],
    table: str,
    likely: Sequence[str],
) -> str:
    first, others = known
    found = [name for name in first if name in names] or [name for name in others if name in names]
    name = given or (found[0] if found and (found[0] in first or len(found) == 1) else None)
    if given is not None and given not in names:
        raise InputError(
            f"{table} must have the column {given!r} that `{option}` names, {_got(names)}"
        )
    if name is None and found:
        raise InputError(
            f"{table} must have one column that `{option}` may mean, got {listed(found, 9)}; "
            f"`{option}` says which"
        )
    if name is None:
        could = f"; `{option}` names another: {listed(likely)} may be it" if likely else ""
        raise InputError(
            f"{table} must have a column {' or '.join(map(repr, first))}, {_got(names)}{could}"
        )
    if list(names).count(name) > 1:
        raise InputError(f"{table} must have one column {name!r}, got {list(names).count(name)}")
    return name


def _got(names: Sequence[str]) -> str:
    return f"got {list(names[:20])}"
