"""Looks at the machine before a run does, for `cl-adapters doctor`.

Every check says what it found and, where something is wrong, what to do about it. Nothing is
guessed from names: fits between packages come from what they declare, speed is measured.
"""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

import torch
from filelock import FileLock
from packaging.requirements import Requirement

from cl_adapters.benchmarks.running.machine import least_seconds, matmul_seconds
from cl_adapters.errors import InputError
from cl_adapters.vit.embedded import EMBEDDED
from cl_adapters.vit.pretrained import load_backbone
from cl_adapters.vit.weight_report import describe_weights

__all__ = ["Finding", "examine", "examine_weights"]

_PACKAGE: Final = "cl-adapters"
_LEAST_DISK: Final = 2  # GiB; a run of 20 experiences with MOS on ViT-B leaves about one
_LEAST_MEMORY: Final = 2  # GiB; what a CIFAR-100 run with ViT-Tiny peaks at


@dataclass(frozen=True)
class Finding:
    """What a check found; `advice` is None where all is well."""

    check: str
    found: str
    advice: str | None = None


def examine(out: Path) -> list[Finding]:
    """Returns what every check found.

    Args:
        out: Folder that runs would be written into.
    """
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _vision,
        _devices,
        _half_precision,
        _backbone,
        _memory,
        lambda: _disk(out),
    )
    return [finding for check in checks for finding in check()]


def examine_weights(path: Path) -> list[Finding]:
    """Returns what is in a file of weights.

    Raises:
        InputError: If there is no such file, it cannot be read safely, or holds no network.
    """
    if not path.is_file():
        raise InputError(f"weights must be an existing file, got {str(path)!r}")
    return [Finding(*each) for each in describe_weights(path)]


def _python() -> Iterator[Finding]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    needed = sys.version_info >= (3, 11)
    yield Finding("python", found, None if needed else "install Python 3.11 or newer")


def _packages() -> Iterator[Finding]:
    for text in requires(_PACKAGE) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _package(requirement)


def _package(requirement: Requirement) -> Finding:
    name = requirement.name
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, "missing", f"pip install '{requirement}'")
    if requirement.specifier.contains(found, prereleases=True):
        return Finding(name, found)
    return Finding(name, found, f"needs {requirement.specifier}: pip install -U '{requirement}'")


def _vision() -> Iterator[Finding]:
    # Wheels of torchvision declare the one torch that they were built for.
    wanted = [each for text in requires("torchvision") or [] if (each := Requirement(text))]
    for requirement in (each for each in wanted if each.name == "torch"):
        found = f"torchvision {version('torchvision')} is built for torch{requirement.specifier}"
        fits = requirement.specifier.contains(version("torch").partition("+")[0], prereleases=True)
        yield Finding("fit", found, None if fits else _reinstall())
    try:
        import torchvision  # noqa: F401, PLC0415 - the import is the check
    except (ImportError, RuntimeError, AttributeError) as error:
        yield Finding("torchvision", f"does not load: {_first_line(error)}", _reinstall())


def _reinstall() -> str:
    return "pip install -U torch torchvision in one command, so that pip picks a pair that fits"


def _devices() -> Iterator[Finding]:
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    advice = f"use --threads {cores}" if threads > cores else None
    yield Finding("cpu", f"{cores} cores, {threads} threads", advice)
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        name = torch.cuda.get_device_name(index)
        yield Finding(f"cuda:{index}", f"{name}, {memory:.0f} GiB: use --device cuda:{index}")
    if not torch.cuda.is_available():
        yield Finding("gpu", "none that torch can use; runs use the CPU")


def _half_precision() -> Iterator[Finding]:
    ratio = matmul_seconds(torch.float32) / matmul_seconds(torch.bfloat16)
    worth = "worth --precision bf16" if ratio > 1.2 else "stay with --precision fp32"
    yield Finding("bf16", f"matrices are {ratio:.2g} times as fast as in fp32: {worth}")


def _backbone() -> Iterator[Finding]:
    try:
        loaded = load_backbone(EMBEDDED)
    except InputError as error:
        yield Finding("backbone", str(error), "install it again: pip install . in its checkout")
        return
    images = torch.zeros(16, *loaded.model.input_shape)

    def forward() -> None:
        with torch.no_grad():
            loaded.model.features(loaded.model.run(loaded.model.tokens(images)))

    rate = len(images) / least_seconds(forward)
    yield Finding("backbone", f"{EMBEDDED} loads, {rate:.0f} images/s forward")


def _memory() -> Iterator[Finding]:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (ValueError, OSError):  # not on every system
        return
    advice = "close other programs or lower batch_size" if free < _LEAST_MEMORY else None
    yield Finding("memory", f"{free:.1f} GiB free", advice)


def _disk(out: Path) -> Iterator[Finding]:
    place = next(each for each in (out.absolute(), *out.absolute().parents) if each.exists())
    free = shutil.disk_usage(place).free / 2**30
    advice = f"choose another --out or free {_LEAST_DISK} GiB" if free < _LEAST_DISK else None
    yield Finding("disk", f"{free:.0f} GiB free at {place}", advice)
    try:
        with tempfile.TemporaryDirectory(dir=place) as folder, FileLock(Path(folder) / "lock"):
            pass
    except (OSError, NotImplementedError) as error:
        yield Finding("writing", f"{place}: {_first_line(error)}", "choose another --out")
    else:
        yield Finding("writing", f"files and locks work at {place}")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
