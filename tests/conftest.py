"""The tiny frozen ViT and the two-experience stream that most tests share."""

import atexit
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# One thread, here and in the commands that tests start: the networks are tiny, and on a machine
# that is shared two threads wait for each other most of the time. Set before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"
# Where a test wants two, they wait asleep for a core that another test has.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
# Importing readline, as pytest does, names a width to all processes that are started from then on.
os.environ.pop("COLUMNS", None)
if "PYTEST_XDIST_WORKER" in os.environ:  # the first to be registered is the last to be called
    atexit.register(os._exit, 0)  # as `cl_adapters.loading` does
# What frozen parts compute is kept for this session only, not in the user's cache.
os.environ["CL_ADAPTERS_CACHE"] = tempfile.mkdtemp(prefix="cl-adapters-cache-")
atexit.register(shutil.rmtree, os.environ["CL_ADAPTERS_CACHE"], ignore_errors=True)
# Jobs that a script starts in the background ignore Ctrl-C from birth; tests send it to themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Half a million objects are imported for good; looking through them costs seconds each time.
gc.disable()

import pytest
from hypothesis import HealthCheck, settings

from tests.reliability import Counts, write_rows

# What is imported in functions takes ten seconds, which the process that only hands out tests to
# others would spend before they begin.
if TYPE_CHECKING:
    from torch import Tensor

    from cl_adapters.vit.adapted_vit import AdaptedViT

# How long an example takes says something of the machine's other work alone. The other half of a
# hundred examples finds little, as each run draws its own.
settings.register_profile(
    "any machine",
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Puts back the number of threads, which commands that run in this process may set."""
    import torch

    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture
def tiny_vit() -> "AdaptedViT":
    """timm's `test_vit` (width 64, six blocks) for 32-pixel images, random but fixed weights."""
    import timm
    import torch

    from cl_adapters.vit.adapted_vit import AdaptedViT

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AdaptedViT(timm.create_model("test_vit", num_classes=0, img_size=32))


def coloured_images(labels: list[int], seed: int) -> "Tensor":
    """Noise images whose bright stripe tells the class: easy, but not solved by chance."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(len(labels), 3, 32, 32, generator=generator)
    for index, label in enumerate(labels):
        images[index, label % 3, 8 * (label % 4) : 8 * (label % 4) + 8] += 2
    return images


def make_dataset(classes: list[int], per_class: int, seed: int) -> Any:
    import torch
    from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
    from torch.utils.data import TensorDataset

    labels = [label for label in classes for _ in range(per_class)]
    data = TensorDataset(coloured_images(labels, seed), torch.tensor(labels))
    return AvalancheDataset([data], data_attributes=[DataAttribute(labels, "targets")])


@pytest.fixture
def make_stream() -> Callable[..., Any]:
    """Builds an Avalanche benchmark from lists of classes, one an experience."""
    from avalanche.benchmarks import benchmark_from_datasets

    def build(experiences: list[list[int]], per_class: int = 12, seed: int = 0) -> Any:
        return benchmark_from_datasets(
            train=[make_dataset(each, per_class, seed + 1) for each in experiences],
            test=[make_dataset(each, 6, seed + 2) for each in experiences],
        )

    return build


def pytest_collection_finish() -> None:
    """Leaves what was imported out of all later collections."""
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Adds up what the tests of reliability have recorded, and says how many of them failed."""
    counts = Counts()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            found = getattr(report, "user_properties", [])
            counts.add(report.nodeid.partition("::")[0], report.outcome, found)
    if counts.sentence():
        terminalreporter.write_line(counts.sentence())
    if os.environ.get("RELIABILITY"):
        write_rows(counts.rows(), Path(os.environ["RELIABILITY"]))
