"""Hypothesis strategies for files of weights as people might have them, sound and odd."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from cl_adapters.vit.pretrained import load_backbone

__all__ = ["STATE", "WeightsFile", "changed", "files", "written"]

WeightsFile = dict[str, Any]

STATE: Final = {
    name: value.clone()
    for name, value in load_backbone("test_vit", weights="random", image_size=32)
    .model.vit.state_dict()
    .items()
}
_NAMES: Final = st.sampled_from([*sorted(STATE)[:6], "pos_embed", "cls_token", "norm.weight"])


def _spoiled(value: Tensor, number: float) -> Tensor:
    changed = value.clone()
    changed.view(-1)[-1] = number
    return changed


# What becomes of a tensor.
_CHANGES: Final[dict[str, Callable[[Tensor], Any]]] = {
    "gone": lambda _: None,
    "half": Tensor.half,
    "bfloat16": Tensor.bfloat16,
    "double": Tensor.double,
    "double beyond": lambda value: _spoiled(value.double(), 1e300),
    "NaN": lambda value: _spoiled(value, float("nan")),
    "infinity": lambda value: _spoiled(value, float("inf")),
    "integers": Tensor.int,
    "complex": lambda value: value + 0j,
    "truth": lambda value: value > 0,
    "bytes": lambda value: (value * 100).to(torch.uint8),
    "float8": lambda value: value.to(torch.float8_e4m3fn),
    "scalar": lambda value: value.sum(),
    "one more dimension": lambda value: value[None],
    "flat": lambda value: value.reshape(-1),
    "cut": lambda value: value[:-1],
    "empty": lambda value: value[:0],
    "doubled": lambda value: torch.cat([value, value]),
    "transposed": lambda value: value.transpose(0, -1),
    "expanded": lambda value: value.reshape(-1)[:1].expand(value.shape),
    "sparse": Tensor.to_sparse,
    "meta": lambda value: value.to("meta"),
    "quantised": lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
    "parameter": torch.nn.Parameter,
    "a number": lambda value: 0.5,
    "a text": lambda value: "no tensor",
    "an array": lambda value: value.numpy(),
    "a list": lambda value: value.tolist(),
    "nothing": lambda value: [],
}  # fmt: skip
_WRAPS: Final[dict[str, Callable[[dict[Any, Any]], Any]]] = {
    "plain": lambda state: state,
    "entry": lambda state: {"epoch": 3, "state_dict": state},
    "two entries": lambda state: {"model": state, "model_ema": state},
    "three down": lambda state: {"a": {"b": {"model": state}}},
    "prefix": lambda state: {f"module.{name}": each for name, each in state.items()},
    "two prefixes": lambda state: {f"{p}.{n}": each for p in "ab" for n, each in state.items()},
    "prefix of some": lambda state: {
        ("m." if place % 2 else "") + name: each for place, (name, each) in enumerate(state.items())
    },
    "others beside": lambda state: {**state, "fc.weight": torch.ones(3), "epoch": 3},
    "head": lambda state: {**state, "head.weight": torch.full((3, 64), torch.nan)},
    "number keys": lambda state: dict(enumerate(state.values())),
    "one number key": lambda state: {**state, 7: torch.ones(2)},
    "byte keys": lambda state: {name.encode(): each for name, each in state.items()},
    "a list": lambda state: list(state.values()),
    "a tuple": lambda state: (state, 3),
    "one tensor": lambda state: torch.ones(3),
    "nothing": lambda state: None,
    "empty": lambda state: {},
    "upper case": lambda state: {name.upper(): each for name, each in state.items()},
    "optimiser": lambda state: {"optimizer": {"state": {0: {"m": torch.ones(2)}}}, "m": state},
}  # fmt: skip
_SUFFIXES: Final = (".pt", ".pth", ".bin", ".safetensors", ".npz", ".PT", "", ".ckpt", ".txt")
_BYTES: Final = ("as it is", "flip", "many flips", "cut", "double", "empty", "tail")

files = st.fixed_dictionaries(
    {
        "changes": st.dictionaries(_NAMES, st.sampled_from(sorted(_CHANGES)), max_size=2),
        "wrap": st.sampled_from(sorted(_WRAPS)) | st.just("plain"),
        "format": st.sampled_from(["torch", "torch", "old torch", "safetensors", "npz"]),
        "suffix": st.none() | st.sampled_from(_SUFFIXES),
        "bytes": st.just("as it is") | st.sampled_from(_BYTES),
        "seed": st.integers(0, 10**6),
    }
)


def changed(name: str, change: str) -> Any:
    """Returns what becomes of a tensor."""
    return _CHANGES[change](STATE[name])


def written(folder: Path, given: WeightsFile) -> Path | None:
    """Writes a file of weights; None where its format cannot hold such values."""
    state: dict[Any, Any] = dict(STATE)
    for name, change in given["changes"].items():
        state[name] = changed(name, change)
        if state[name] is None:
            del state[name]
    held = _WRAPS[given["wrap"]](state)
    usual = {"torch": ".pt", "old torch": ".pt", "safetensors": ".safetensors", "npz": ".npz"}
    suffix = usual[given["format"]] if given["suffix"] is None else given["suffix"]
    path = folder / f"weights{suffix}"
    try:
        _write(path, held, given["format"])
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError):
        return None
    _damage(path, given["bytes"], random.Random(given["seed"]))
    return path


def _write(path: Path, held: Any, kind: str) -> None:
    if kind == "safetensors":
        save_file({name: each.contiguous() for name, each in held.items()}, path)
    elif kind == "npz":
        arrays = {name: np.asarray(each) for name, each in held.items()}
        with path.open("wb") as file:
            np.savez(file, **arrays)
    else:
        torch.save(held, path, _use_new_zipfile_serialization=kind == "torch")


def _damage(path: Path, kind: str, drawn: random.Random) -> None:
    data = bytearray(path.read_bytes())
    # Half of them where a format keeps its own account.
    ends = [*range(min(400, len(data))), *range(max(len(data) - 900, 0), len(data))]
    for _ in range({"flip": 1, "many flips": 30}.get(kind, 0)):
        data[drawn.choice([drawn.randrange(len(data)), drawn.choice(ends)])] ^= (
            1 << drawn.randrange(8)
        )
    if kind == "cut":
        del data[drawn.randrange(len(data)) :]
    elif kind == "double":
        start, end = sorted(drawn.randrange(len(data)) for _ in range(2))
        data[end:end] = data[start:end]
    elif kind == "empty":
        data.clear()
    elif kind == "tail":
        del data[: drawn.randrange(len(data))]
    path.write_bytes(data)
