"""Several data sets in one text, as the command line has them; a recipe needs no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cl_adapters.benchmarks.streams.class_names import comma_parts
from cl_adapters.errors import InputError

__all__ = ["check_names", "data_sets_of", "name_of"]

_TABLES: Final = (".parquet", ".csv", ".tsv")


def data_sets_of(text: str) -> list[dict[str, str]]:
    """Returns where each data set of a text is, and its name where the text says one.

    Args:
        text: Paths or names of streams, separated by commas; one that holds a comma itself stands
            in double quotes. `signs=data/gtsrb.parquet` names a data set.

    Raises:
        InputError: If it is no such line.

    Example:
        >>> data_sets_of("photos/, signs=data/gtsrb.parquet")
        [{'data': 'photos/'}, {'name': 'signs', 'data': 'data/gtsrb.parquet'}]
    """
    found = []
    for part in filter(None, comma_parts(text, "data must be one line of data sets")):
        name, equals, data = part.partition("=")
        is_named = bool(equals and data) and "/" not in name
        found.append({"name": name.strip(), "data": data.strip()} if is_named else {"data": part})
    return found


def name_of(data: str) -> str:
    """Returns what a data set is called whose name nobody said.

    Example:
        >>> name_of("data/gtsrb.parquet"), name_of("photos/"), name_of("mine.py:signs")
        ('gtsrb', 'photos', 'signs')
    """
    path = Path(data)
    name = path.stem if path.suffix.lower() in _TABLES else path.name
    return name.rpartition(":")[2] or name


def check_names(names: Sequence[str]) -> None:
    """Refuses names of data sets that could not tell their classes apart.

    Raises:
        InputError: If there are fewer than two, or one is empty, stands twice, or holds `/` or a
            comma.
    """
    if len(names) < 2:
        raise InputError(f"scenario 'datasets' must have at least two data sets, got {len(names)}")
    for place, name in enumerate(names):
        if not name.strip(" .") or "/" in name or "," in name:
            raise InputError(
                f"name of a data set must be text without `/` and commas, got {name!r}; its `name` "
                "gives it another"
            )
        if name in names[:place]:
            raise InputError(
                f"data sets must have different names, got {name!r} twice; `name` gives one another"
            )
