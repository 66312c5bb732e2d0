"""The headings under which options stand, in the help of a command and on the recipe's page."""

from enum import StrEnum

__all__ = ["Group"]


class Group(StrEnum):
    """Headings in the order in which they are shown; each key of a recipe names its own."""

    WHAT = "What to run"
    DATA = "Data"
    STREAM = "Stream and scenarios"
    TASK_FREE = "Stream without boundaries"
    PIXELS = "Backbone and pixels"
    COMPUTING = "Computing"
    OUTPUT = "Where it goes"
