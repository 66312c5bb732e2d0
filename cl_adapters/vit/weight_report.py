"""What is in a file of weights: how its tensors are found, what they are, which ViT they fit."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import timm
import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.finiteness import refuse_odd_weights
from cl_adapters.vit.names import EMBEDDED
from cl_adapters.vit.weight_files import read_arrays, read_weights, without_head

__all__ = ["describe_weights", "fitting_architectures"]

# How timm calls a width.
_SIZES: Final = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge", 1408: "giant"}
_TRIED: Final = 8  # architectures of a size and patch that are compared, the plainest names first
_PATCH: Final = "patch_embed.proj.weight"


def describe_weights(path: Path) -> Iterator[tuple[str, str, str | None]]:
    """Yields what is asked, what was found, and what to do about it, None where all is well.

    Args:
        path: A `.safetensors`, `.npz`, `.pt`, `.pth` or `.bin` file.

    Raises:
        InputError: If it cannot be read safely, or holds no network or several.
    """
    if path.suffix == ".npz":
        state, how = read_arrays(path), ""
    else:
        found = read_weights(path)
        state, how = found.tensors, found.describe()
    count = sum(value.numel() for value in state.values())
    yield "file", f"{path.suffix or 'no suffix'}, {len(state)} tensors, {count:,} numbers", None
    yield "reading", f"taken {how}" if how else "taken as it is", None
    try:
        refuse_odd_weights(without_head(state), "weights")
    except InputError as error:
        yield "numbers", str(error), "no run takes these: write the file again"
    else:
        yield "numbers", "plain floating-point numbers, all finite", None
    yield _architecture(state)


def _architecture(state: Mapping[str, Tensor]) -> tuple[str, str, str | None]:
    patch, position = state.get(_PATCH), state.get("pos_embed")
    if patch is None or patch.ndim != 4:
        is_google = "embedding/kernel" in state
        found = "arrays of the ViT paper" if is_google else "no layout of timm's ViT"
        return "network", found, None if is_google else f"timm's ViT have a tensor {_PATCH!r}"
    blocks = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    side = patch.shape[-1]
    tokens = position.shape[1] if position is not None and position.ndim == 3 else 0
    image = f", images of {side * int(tokens**0.5)} pixels" if tokens else ""
    found = f"width {len(patch)}, {blocks} blocks, patches of {side} pixels{image}"
    names = list(fitting_architectures(state))
    if not names:
        return "network", found, "none of timm's ViT of that size has these tensors"
    return "network", f"{found}: --backbone {' or '.join(names)}", None


def fitting_architectures(state: Mapping[str, Tensor]) -> Iterator[str]:
    """Yields the plainest architectures of timm that have these tensors, positions and head apart.

    Args:
        state: Tensors by name, in timm's layout.
    """
    expected = _shapes(state)
    width, _, side, _ = state[_PATCH].shape
    named = timm.list_models(
        f"*{_SIZES.get(width, 'vit')}*patch{side}*", module="vision_transformer"
    )
    plain = sorted(named, key=lambda name: (len(name), name))[:_TRIED]
    for name in [EMBEDDED, "test_vit", *plain]:
        with torch.device("meta"):
            network: torch.nn.Module = timm.create_model(name, num_classes=0)
        if _shapes(network.state_dict()) == expected:
            yield name


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    # Positions of another size of images are resampled.
    shapes = {name: tuple(value.shape) for name, value in without_head(state).items()}
    return {**shapes, **({"pos_embed": shapes["pos_embed"][-1:]} if "pos_embed" in shapes else {})}
