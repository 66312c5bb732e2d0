"""What the checks of strategies measure: bits, hooks, bytes held, settings of the process."""

import os
import pickle
import random
import sys
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from cl_adapters.strategies.core.strategy import AdapterStrategy

__all__ = ["bytes_held", "changed", "global_settings", "module_parts", "same_bits"]


def module_parts(module: nn.Module) -> list[str]:
    """Returns what each part of a module holds: names of attributes, numbers of hooks."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        f"{name} {sorted(vars(part))} {[len(vars(part)[hook]) for hook in hooks]}"
        for name, part in module.named_modules()
    ]


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """Returns the names of the tensors that differ, came or went, sorted."""
    names = sorted({*before, *after})
    return [name for name in names if not same_bits(before.get(name), after.get(name))]


def same_bits(one: Tensor | None, two: Tensor | None) -> bool:
    """Says whether two tensors on the CPU are bit-identical."""
    if one is None or two is None or one.dtype != two.dtype:
        return False
    # As bits: NaN equals itself, and 0 is not -0.
    return one.shape == two.shape and one.numpy().tobytes() == two.detach().numpy().tobytes()


def bytes_held(strategy: AdapterStrategy) -> int:
    """Returns the size of all tensors that a strategy and its model hold, the backbone's left out.

    What Avalanche's loop holds is passed over: the current batch, the optimiser, the data.
    """
    own = {id(value) for value in strategy.backbone.modules()}
    passed = {
        "mbatch",
        "mb_output",
        "output",
        "loss",
        "optimizer",
        "dataloader",
        "experience",
        "_criterion",
        "_images",
        "_own_loader",
        "_batches",
        "backbone",
    }
    held: dict[int, int] = {}
    todo: list[object] = [value for name, value in vars(strategy).items() if name not in passed]
    known: set[int] = set()
    while todo:
        each = todo.pop()
        if id(each) in known or id(each) in own:
            continue
        known.add(id(each))
        if isinstance(each, Tensor):
            held[each.untyped_storage().data_ptr()] = each.untyped_storage().nbytes()
        elif isinstance(each, nn.Module):
            todo += vars(each).values()
        elif isinstance(each, dict):
            todo += each.values()
        elif isinstance(each, list | tuple | set):
            todo += each
        elif type(each).__module__.startswith("cl_adapters"):
            todo += getattr(each, "__dict__", {}).values()
    return sum(held.values())


def global_settings() -> dict[str, object]:
    """Returns what of the process no strategy may change, by name."""
    return {
        "torch's global random state": torch.random.get_rng_state().tolist(),
        "NumPy's global random state": pickle.dumps(np.random.get_state()),  # noqa: NPY002
        "Python's global random state": random.getstate(),
        "torch's default type": torch.get_default_dtype(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "cuDNN's settings": (
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
        ),
        "the environment": dict(os.environ),
        "the working directory": str(os.getcwd()),  # noqa: PTH109 - compared, not used as a path
        "the import path": list(sys.path),
    }
