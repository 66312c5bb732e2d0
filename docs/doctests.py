"""Lets the site show examples as code: griffe knows `Examples:`, our docstrings say `Example:`."""  # noqa: INP001 - no package

import re

import griffe


class Doctests(griffe.Extension):
    """Renames the section in each docstring that is read."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Follows the reading of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
