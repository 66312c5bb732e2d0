"""Names of networks, apart from the networks: a recipe needs no torch."""

from typing import Final

__all__ = ["EMBEDDED"]

EMBEDDED: Final = "vit_pico_patch4_32"
