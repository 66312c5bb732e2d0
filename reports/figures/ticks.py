"""Where the ticks of an axis of experiences stand, and what they say."""

from collections.abc import Iterable, Sequence
from typing import Final

from matplotlib.axes import Axes

from cl_adapters.reports.experience_names import cut
from cl_adapters.reports.groups import Group

__all__ = ["data_ticks", "set_experience_ticks", "set_progress_ticks"]

_MOST: Final = 13
_WIDTH, _LETTER = 4.4, 0.072  # inches of all names below an axis, and of a letter
_LEAST: Final = 10  # letters below which a name cut off says nothing


def data_ticks(places: Iterable[int], most: int = _MOST) -> list[int]:
    """Returns places of data for ticks: all, or some of many, always the last.

    Args:
        places: Where there are values.
        most: How many ticks at most.

    Example:
        >>> data_ticks([2, 4, 6]), data_ticks(range(1, 21), most=8)
        ([2, 4, 6], [2, 5, 8, 11, 14, 17, 20])
    """
    known = sorted(set(places))
    least = (known[-1] - known[0]) / (most - 1)
    kept = [known[-1]]
    for place in reversed(known[:-1]):
        if kept[0] - place >= least:
            kept.insert(0, place)
    return kept


def set_experience_ticks(
    axes: Axes, num_experiences: int, names: Sequence[str] = (), width: float = _WIDTH
) -> None:
    """Puts ticks below axes that count experiences from 1.

    Args:
        axes: What gets them.
        num_experiences: Number of the last.
        names: What each is called; empty for numbers alone.
        width: Of the axes in inches.
    """
    places = range(1, num_experiences + 1)
    _set(axes, data_ticks(places), dict(zip(places, names, strict=False)), width)


def set_progress_ticks(axes: Axes, group: Group) -> None:
    """Puts ticks at the progress of a group's methods, with the names of the experiences.

    Args:
        axes: What gets them.
        group: The methods.
    """
    places = data_ticks(place for row in group.rows for place in row.progress)
    names = dict(zip(group.rows[0].progress, group.experience_names, strict=False))
    _set(axes, places, names, _WIDTH)


def _set(axes: Axes, places: list[int], names: dict[int, str], width: float) -> None:
    letters = int(width / _LETTER / len(places)) - 1
    has_room = letters >= _LEAST or all(len(names.get(place, "")) <= letters for place in places)
    shown = {place: cut(names.get(place, ""), letters) if has_room else "" for place in places}
    axes.set_xticks(places, [f"{place}\n{shown[place]}".rstrip() for place in places])
    room = 0.04 * (places[-1] - places[0]) or 0.5
    axes.set_xlim(places[0] - room, places[-1] + room)
