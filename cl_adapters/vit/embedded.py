"""The backbone that ships with the package, registered with timm as `vit_pico_patch4_32`.

The architecture and the digest of the weights, unpacked, stand in `weights/vit_pico_patch4_32.json`
beside them; `docs/model_card.md` says what they were trained on and what they can do.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

from safetensors.torch import load
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from cl_adapters.errors import InputError
from cl_adapters.vit.names import EMBEDDED
from cl_adapters.vit.packing import unpack_halves

__all__ = [
    "EMBEDDED",
    "check_embedded_file",
    "embedded_card",
    "embedded_weights",
    "vit_pico_patch4_32",
]

_FOLDER: Final = Path(__file__).parent / "weights"
_FILE: Final = _FOLDER / f"{EMBEDDED}.halves"  # safetensors, packed by `vit.packing`

# timm finds this table by its name in the module that registers a model.
default_cfgs = generate_default_cfgs(
    {
        f"{EMBEDDED}.distilled_tin": {
            "file": str(_FILE),
            "num_classes": 0,
            "input_size": (3, 32, 32),
            "pool_size": None,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "license": "Apache-2.0",
        }
    }
)


@cache
def embedded_card() -> dict[str, Any]:
    """Returns the facts about the embedded weights: architecture, sha256, recipe, numbers."""
    return cast("dict[str, Any]", json.loads((_FOLDER / f"{EMBEDDED}.json").read_text("utf-8")))


def embedded_weights() -> bytes:
    """Returns the weights of this installation, a safetensors file, once they fit their digest.

    Raises:
        InputError: If the file is missing or was changed.
    """
    expected = embedded_card()["sha256"]
    try:
        weights = unpack_halves(_FILE.read_bytes())
        found = hashlib.sha256(weights).hexdigest()
    except (OSError, InputError):
        weights, found = b"", "no such weights"
    if found != expected:
        raise InputError(
            f"embedded weights {_FILE} must have sha256 {expected[:16]}, got {found[:16]}"
        )
    return weights


@cache
def check_embedded_file() -> None:
    """Checks the weights file of this installation against its digest, once a process.

    Raises:
        InputError: If the file is missing or was changed.
    """
    embedded_weights()


@register_model  # type: ignore[untyped-decorator] # timm ships no types
def vit_pico_patch4_32(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:  # noqa: ANN401, FBT001, FBT002 - timm's signature
    """A small ViT for 32-pixel images, pretrained by this project."""
    if pretrained:
        given = kwargs.get("pretrained_cfg_overlay") or {}
        kwargs["pretrained_cfg_overlay"] = {"state_dict": load(embedded_weights()), **given}
    vit: VisionTransformer = build_model_with_cfg(
        VisionTransformer,
        EMBEDDED,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        **{**embedded_card()["architecture"], **kwargs},
    )
    vit.pretrained_cfg["state_dict"] = None  # the network holds them now
    return vit
