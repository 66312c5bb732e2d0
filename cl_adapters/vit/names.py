"""Names of networks, apart from the networks: a recipe needs no torch."""

from collections.abc import Mapping
from typing import Final

__all__ = ["EMBEDDED", "FOR_PHOTOS", "GOOD_BACKBONES"]

EMBEDDED: Final = "vit_pico_patch4_32"
FOR_PHOTOS: Final = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
# Where to begin, and with what: the default, the one of the README's results on photographs, the
# one of most published settings.
GOOD_BACKBONES: Final[Mapping[str, str]] = {
    EMBEDDED: "small images",
    FOR_PHOTOS: "photos",
    "vit_base_patch16_224.augreg_in21k": "papers",
}
