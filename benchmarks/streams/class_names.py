"""A class order by a rule's name or by the names of the classes; a recipe needs no torch."""

import csv
import io
from collections.abc import Sequence
from typing import Final

from cl_adapters.errors import InputError, listed, unknown_name
from cl_adapters.paths import read_text, user_path

__all__ = ["ORDER_RULES", "class_positions", "comma_parts", "named_order", "order_text"]

ORDER_RULES: Final = ("natural", "seeded", "numpy1993", "numpy1995")
_RULE: Final = "class order must be one line of names"


def order_text(text: str) -> str:
    """Returns a class order as a recipe holds it: that of a file, `@order.txt`, as its names.

    Args:
        text: A class order, or `@` and the path of a text file with a class name a line; the `@`
            may be left out before a path that ends in `.txt`. Empty lines are passed over.

    Raises:
        InputError: If the file cannot be read or holds no name.
    """
    if not _is_file(text):
        return text
    path = user_path(text.removeprefix("@"))
    try:
        lines = read_text(path).removeprefix("\ufeff").splitlines()
    except (OSError, ValueError) as error:  # ValueError: no UTF-8
        raise InputError(
            f"class order {text!r} must be a readable text file, got: {error}"
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise InputError(f"class order {text!r} must be a file with a class name a line, got none")
    return _joined(names)


def _joined(names: Sequence[str]) -> str:
    plain = ",".join(names)
    # All in quotes where the plain text would not be read as these names, or as a file again.
    if comma_parts(plain, _RULE) == list(names) and not _is_file(plain):
        return plain
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="").writerow(names)
    return text.getvalue()


def _is_file(text: str) -> bool:
    return text.startswith("@") or text.lower().endswith(".txt")


def named_order(text: str, classes: Sequence[str]) -> str | tuple[int, ...]:
    """Returns the positions of the classes that a class order names; another one as it is.

    Whole numbers are positions, unless they are the names of the classes and no positions.

    Args:
        text: A class order; names are separated by commas, and stand in double quotes if they hold
            one themselves.
        classes: Names of the classes by position.

    Raises:
        InputError: If a name is unknown, there twice or missing.

    Example:
        >>> named_order("dog,cat", ["cat", "dog"]), named_order("1,0", ["cat", "dog"])
        ((1, 0), '1,0')
    """
    if text in ORDER_RULES:
        return text
    names = comma_parts(text, _RULE)
    if all(_is_number(name) for name in names) and not _are_names(names, classes):
        return text
    if len(names) == 1 and names[0] not in classes:
        raise unknown_name("class order", text, ORDER_RULES)
    return class_positions(names, classes, "class order")


def class_positions(names: Sequence[str], classes: Sequence[str], what: str) -> tuple[int, ...]:
    """Returns the position of each named class.

    Args:
        names: Every class, once.
        classes: Names of the classes by position.
        what: What names them, for messages.

    Raises:
        InputError: If a name is unknown, there twice or missing.
    """
    places = {name: place for place, name in enumerate(classes)}
    seen = set[str]()
    for name in names:
        if name not in places:
            raise unknown_name(f"class in the {what}", name, classes)
        if name in seen:
            raise InputError(f"{what} must hold each class once, got {name!r} twice")
        seen.add(name)
    missing = [name for name in classes if name not in seen]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise InputError(f"{what} must hold each class once, {listed(missing)} {verb} missing")
    return tuple(places[name] for name in names)


def comma_parts(text: str, rule: str) -> list[str]:
    """Returns what stands between the commas of a line, without spaces around it.

    Args:
        text: The line; a part that holds a comma itself stands in double quotes.
        rule: What the line must be, for messages: `class order must be one line of names`.

    Raises:
        InputError: If it is no such line.

    Example:
        >>> comma_parts('cat, "dog, big"', "names must be one line")
        ['cat', 'dog, big']
    """
    try:
        rows = list(csv.reader([text], skipinitialspace=True))
    except csv.Error as error:
        raise InputError(f"{rule} separated by commas, got {text[:60]!r}") from error
    return [part.strip() for part in rows[0]] if rows else []


def _is_number(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


def _are_names(numbers: Sequence[str], classes: Sequence[str]) -> bool:
    is_positions = sorted(map(int, numbers)) == list(range(len(classes)))
    return not is_positions and set(numbers) <= set(classes)
