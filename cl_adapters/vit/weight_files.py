"""Weights from files, read without running what is in them.

Nothing is unpickled: safetensors, npz without objects, and `.pt` with `weights_only=True`.
"""

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from cl_adapters.errors import InputError, listed
from cl_adapters.finiteness import refuse_odd_weights
from cl_adapters.vit.state_dicts import SHOWN, FoundState, find_state

__all__ = ["load_weights", "read_arrays", "read_weights", "without_head"]

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
# What timm's conversion raises on tensors of other shapes.
_UNFIT: Final = (
    RuntimeError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    ArithmeticError,
)
_HEADS: Final = ("head.", "head_dist.")


def load_weights(vit: VisionTransformer, path: Path) -> tuple[str, ...]:
    """Loads the weights of a file into a network.

    Args:
        vit: The network.
        path: A `.safetensors`, `.npz`, `.pt`, `.pth` or `.bin` file, which holds the network's
            state as it is, in one of its entries, or under names with one prefix.

    Returns:
        Sentences that say how the file was read, where there was a choice.

    Raises:
        InputError: If the file cannot be read safely or does not fit.
    """
    where = _where(path)
    if path.suffix == ".npz":
        _load_npz(vit, path)
        refuse_odd_weights(vit.state_dict(), where)
        return ()
    found = read_weights(path)
    refuse_odd_weights(without_head(found.tensors), where)
    expected = {key: tuple(value.shape) for key, value in vit.state_dict().items()}
    try:
        state = without_head(checkpoint_filter_fn(found.tensors, vit))
        given = {key: tuple(value.shape) for key, value in state.items()}
    except _UNFIT:
        given = {key: tuple(value.shape) for key, value in without_head(found.tensors).items()}
    if given != expected:
        raise InputError(f"{where} must fit the backbone: {_misfit(expected, given)}")
    vit.load_state_dict(state)
    how = found.describe()
    return (f"{where} were taken {how}",) if how else ()


def read_weights(path: Path) -> FoundState:
    """Returns the tensors of a file that is no `.npz`.

    Raises:
        InputError: If the file cannot be read safely, or holds no network or several.
    """
    where = _where(path)
    try:
        if path.suffix == ".safetensors":
            held: Any = load_file(path)
        else:
            with warnings.catch_warnings():  # of what is refused in a sentence
                warnings.simplefilter("ignore")
                held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _with_code(path, error) from error
    except _UNREADABLE as error:
        raise InputError(
            f"{where} must be readable and free of code, got: {_first_line(error)}"
        ) from error
    return find_state(held, where)


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Returns the arrays of a `.npz` file.

    Raises:
        InputError: If it cannot be read safely.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            return {name: torch.from_numpy(held[name]) for name in held.files}
    except (zipfile.BadZipFile, *_UNREADABLE) as error:
        raise InputError(
            f"{_where(path)} must be readable and free of code, got: {_first_line(error)}"
        ) from error


def _where(path: Path) -> str:
    return f"weights in {str(path)!r}"


def without_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of a state that are no classifier's."""
    return {key: value for key, value in state.items() if not key.startswith(_HEADS)}


def _first_line(error: Exception) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()  # torch paints its errors
    if "TorchScript archive" in text:
        return (
            "a TorchScript archive, a program: save the state dict of the model that it was made of"
        )
    return text.splitlines()[0] if text else type(error).__name__


def _with_code(path: Path, error: Exception) -> InputError:
    """Returns the error for a pickle that asks for classes, which only code could make."""
    try:
        found = get_unsafe_globals_in_checkpoint(path)
        names = sorted(found, key=lambda name: (name.startswith("torch."), name))
    except _UNREADABLE:  # a file of an older kind
        names = re.findall(r"(?:GLOBAL|global) `?([\w.]+)`? was not", str(error))
    rule = f"{_where(path)} must be readable and free of code, got"
    if not names:
        return InputError(f"{rule}: {_first_line(error)}")
    return InputError(
        f"{rule} objects of {listed(names, SHOWN)}, which are made by running code that the file "
        "names: where you trust it, load it with the program that wrote it and keep the tensors "
        "alone, torch.save(model.state_dict(), 'weights.pt')"
    )


def _load_npz(vit: VisionTransformer, path: Path) -> None:
    try:
        vit.load_pretrained(str(path))
    except (OSError, EOFError, zipfile.BadZipFile, *_UNFIT) as error:
        reason = _first_line(error) if str(error) else "shapes differ"
        raise InputError(f"{_where(path)} must fit the backbone: {reason}") from error


def _misfit(expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> str:
    for key, shape in expected.items():
        if key not in given:
            return f"tensor {key!r} is missing; the file holds {listed(given, SHOWN)}"
        if given[key] != shape:
            return f"tensor {key!r} must have shape {shape}, got {given[key]}"
    extra = sorted(set(given) - set(expected))
    if extra:
        return f"tensor {extra[0]!r} has no place in it"
    return "timm's conversion of its layout fails"
