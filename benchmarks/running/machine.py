"""What this machine has for a run over published images: which of them, memory and speed."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from cl_adapters.benchmarks.data.sources import open_source
from cl_adapters.errors import InputError
from cl_adapters.paths import user_path
from cl_adapters.records.run_record import RunRecord
from cl_adapters.vit.device import find_device

__all__ = [
    "PASS",
    "Images",
    "Machine",
    "images_at",
    "images_of",
    "least_seconds",
    "matmul_seconds",
    "this_machine",
]

_TOKENS, _WIDTH, _BLOCKS, _PATCH = 197, 768, 12, 3 * 16 * 16
# Multiply-adds of an image through ViT-B/16 at 224 pixels: the products of its layers alone.
PASS: Final = (_TOKENS - 1) * _PATCH * _WIDTH + _BLOCKS * (
    12 * _TOKENS * _WIDTH**2 + 2 * _TOKENS**2 * _WIDTH
)
_ROWS: Final = 1024


class Images(NamedTuple):
    """How many classes and images a data set has."""

    classes: int
    train: int
    test: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What stands ready for a run.

    Attributes:
        device: Where `--device auto` computes: cpu, cuda or mps.
        images: The data sets that are known to lie here.
        memory: Bytes of the machine, None where the system does not say.
        seconds_a_pass: Least seconds of an image through ViT-B/16: its products, nothing else.
    """

    device: str
    images: Sequence[Images]
    memory: int | None
    seconds_a_pass: float


def this_machine(images: Sequence[Images]) -> Machine:
    """Returns what this machine has; its speed is measured, in a fraction of a second.

    Args:
        images: The data sets that are known to lie here.
    """
    device = find_device("auto")
    seconds = matmul_seconds(torch.float32, device)
    return Machine(
        device=device.type,
        images=images,
        memory=_memory(),
        seconds_a_pass=seconds * PASS / (_ROWS * _WIDTH**2),
    )


def matmul_seconds(dtype: torch.dtype, device: torch.device | None = None) -> float:
    """Returns the least seconds of a product of (1024, 768) and (768, 768) numbers.

    Args:
        dtype: Of both.
        device: Where to compute; the CPU by default.
    """
    rows, weights = (torch.ones(size, _WIDTH, dtype=dtype, device=device) for size in (_ROWS, 768))
    return least_seconds(lambda: (rows @ weights)[0, 0].item(), device)  # a GPU is done then


def least_seconds(work: Callable[[], object], device: torch.device | None = None) -> float:
    """Returns the least seconds that some work takes, of five times.

    On the CPU those of its processor, shared among torch's threads, if they are fewer: other
    programs take none of them.

    Args:
        work: What to time.
        device: Where it computes; the CPU by default.
    """
    taken = []
    for _ in range(5):  # the first warms up, others may be disturbed
        since, spent = time.perf_counter(), time.process_time()
        work()
        taken.append(time.perf_counter() - since)
        if device is None or device.type == "cpu":
            taken.append((time.process_time() - spent) / torch.get_num_threads())
    return min(taken)


def images_at(path: Path) -> Images:
    """Returns what an image folder or a table holds.

    Raises:
        InputError: If it cannot be read as images.
    """
    if not path.exists():
        raise InputError(f"data must be an image folder or a table that exists, got {str(path)!r}")
    source = open_source(path)
    return Images(len(source.classes), len(source.train), len(source.test))


def images_of(record: RunRecord) -> Images | None:
    """Returns what a run was done on, None if that is not on this machine any more."""
    path, data = record.config.get("data"), record.fingerprint.get("data")
    if not path or not user_path(str(path)).exists() or not isinstance(data, Mapping):
        return None
    return Images(int(data.get("classes", 0)), _count(data, "train"), _count(data, "test"))


def _count(data: Mapping[str, Any], split: str) -> int:
    found = data.get(split)
    return int(found.get("images", 0)) if isinstance(found, Mapping) else 0


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on every system
        return None
