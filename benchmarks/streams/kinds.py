"""Names of the kinds of change, apart from what they compute: a recipe needs no image library."""

from typing import Final

__all__ = ["KIND_NAMES"]

KIND_NAMES: Final = ("rotation", "blur", "noise", "inversion", "contrast", "colour")
