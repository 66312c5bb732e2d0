"""Digests of the files that names lead to: a changed file is another run."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from cl_adapters.errors import InputError
from cl_adapters.paths import user_path
from cl_adapters.plugins.references import SUFFIX, file_digest, in_words, is_reference

__all__ = ["source_digest", "source_digests"]


def source_digest(reference: str) -> str:
    """Returns the SHA-256 of the file that a reference leads to.

    Raises:
        InputError: If there is no such file.
    """
    where = reference.rpartition(":")[0]
    if where.endswith(SUFFIX):
        return file_digest(user_path(where))
    try:
        found = importlib.util.find_spec(where)
    except (ImportError, ValueError) as error:
        raise InputError(f"module {where!r} must be importable, got {in_words(error)}") from error
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise InputError(f"module {where!r} must be importable from a file, there is none")
    return file_digest(Path(found.origin))


def source_digests(*values: object) -> dict[str, str]:
    """Returns the digest of each file that a reference among some values leads to, by reference.

    Args:
        *values: Names, or mappings of options with names among their values; anything else is
            passed over, and so is text that looks like a reference and leads to no file.
    """
    found: dict[str, str] = {}
    for value in values:
        if isinstance(value, Mapping):
            found |= source_digests(*value.values())
        elif isinstance(value, str) and is_reference(value):
            try:
                found[value] = source_digest(value)
            except InputError:
                continue
    return dict(sorted(found.items()))
