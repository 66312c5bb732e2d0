"""Weights from files, read without running what is in them.

Nothing is unpickled: safetensors, npz without objects, and `.pt` with `weights_only=True`.
"""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import safetensors
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from cl_adapters.errors import InputError

__all__ = ["load_weights"]

# What torch's and safetensors' readers raise on files that are not theirs.
_UNREADABLE: Final = (
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    struct.error,
    safetensors.SafetensorError,
    pickle.UnpicklingError,
)


def load_weights(vit: VisionTransformer, path: Path) -> None:
    """Loads the weights of a file into a network.

    Args:
        vit: The network.
        path: A `.safetensors`, `.npz`, `.pt`, `.pth` or `.bin` file.

    Raises:
        InputError: If the file cannot be read safely or does not fit.
    """
    if path.suffix == ".npz":
        _load_npz(vit, path)
        return
    state = checkpoint_filter_fn(_read_state(path), vit)
    state = {
        key: value for key, value in state.items() if not key.startswith(("head.", "head_dist."))
    }
    expected = {key: tuple(value.shape) for key, value in vit.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    if given != expected:
        raise InputError(
            f"weights in {str(path)!r} must fit the backbone: {_misfit(expected, given)}"
        )
    vit.load_state_dict(state)


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"weights in {str(path)!r} must be readable and free of code, got: {reason}"
        ) from error
    nested = (
        state.get("model", state.get("state_dict", state)) if isinstance(state, Mapping) else None
    )
    if not isinstance(nested, Mapping) or not all(
        isinstance(value, Tensor) for value in nested.values()
    ):
        raise InputError(
            f"weights in {str(path)!r} must be a state dict of tensors, got {type(state).__name__}"
        )
    return dict(nested)


def _load_npz(vit: VisionTransformer, path: Path) -> None:
    try:
        vit.load_pretrained(str(path))
    except (
        OSError,
        KeyError,
        ValueError,
        RuntimeError,
        AssertionError,
        zipfile.BadZipFile,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else "shapes differ"
        raise InputError(f"weights in {str(path)!r} must fit the backbone: {reason}") from error


def _misfit(expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> str:
    for key, shape in expected.items():
        if key not in given:
            return f"tensor {key!r} is missing"
        if given[key] != shape:
            return f"tensor {key!r} must have shape {shape}, got {given[key]}"
    return f"tensor {min(set(given) - set(expected))!r} has no place in it"
