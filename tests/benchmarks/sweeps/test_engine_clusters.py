"""The Ray engine against the local one, on a real cluster that loses nodes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cl_adapters.benchmarks.sweeps.engine_local import _pool
from cl_adapters.benchmarks.sweeps.retries import Workers
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.reports.groups import group_runs
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.tables.comparison import table_files
from tests.benchmarks.sweeps.sweeping import assert_same, ended


@pytest.mark.slow
def test_each_worker_has_a_gpu_of_its_own() -> None:
    workers = Workers(gpus=(3, 5, 6))
    with _pool(3, workers) as pool:
        seen = set(pool.map(gpu_of, range(6)))
    assert {gpu for _, gpu in seen} <= {"3", "5", "6"}
    assert len(seen) == len({worker for worker, _ in seen}) == len({gpu for _, gpu in seen}) > 1


def gpu_of(_: int) -> tuple[int, str]:
    time.sleep(0.5)  # so that one process does not do it all
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]


def sweep(
    folder: Path, *arguments: str, increments: Sequence[int] = (5, 10), seeds: int = 3
) -> "subprocess.Popen[str]":
    """2 strategies x 2 streams x 3 seeds on digits with the embedded backbone, or a part of it."""
    for increment in increments:
        (folder / f"{increment}.toml").write_text(f"increment = {increment}\nimage_size = 16\n")
    recipes = ",".join(f"{increment}.toml" for increment in increments)
    grid = ["--strategy", "lae,simplecil", "--recipe", recipes, "--seeds", str(seeds)]
    options = ["--set", "lae.epochs=1", "--set", "lae.freeze_epochs=0", "--out", "runs"]
    return subprocess.Popen(
        [sys.executable, "-m", "cl_adapters", "sweep", *grid, *options, *arguments],
        cwd=folder,  # recipes are named relative to it
        text=True,
        stderr=subprocess.PIPE,
    )


def finished(out: Path) -> dict[Path, int]:
    """The finished runs, and when the record that says so was written."""
    found = {}
    for folder in find_runs([out]) if out.is_dir() else []:
        if RunRecord.read(folder).state == "finished":
            found[folder] = (folder / "run.json").stat().st_mtime_ns
    return found


def tables(out: Path) -> dict[str, str]:
    """The tables of a report that hold no times."""
    groups = group_runs(load_runs([out]).finished)
    files = {name: text for group in groups for name, text in table_files(group).items()}
    kinds = ("curves.csv", "matrix.csv", "classes.csv")
    return {name: text for name, text in files.items() if name.endswith(kinds)}


def wait_for(process: "subprocess.Popen[str]", out: Path, number: int) -> None:
    """Waits until so many runs of a sweep under way are finished."""
    until(lambda: len(finished(out)) >= number or process.poll() is not None)
    assert process.poll() is None, process.communicate()[1]


def until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the local engine makes of the sweep."""
    folder = tmp_path_factory.mktemp("alone")
    ended(sweep(folder))
    return folder / "runs"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of this machine whose head runs nothing."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # other tests do not go before
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield made
    made.shutdown()


@pytest.mark.slow
@pytest.mark.alone  # a cluster takes both cores
@pytest.mark.filterwarnings("ignore")
def test_a_node_dies_and_both_engines_have_the_same_tables(
    alone: Path, cluster: Any, tmp_path: Path
) -> None:
    """All runs finish, none of them twice, though the one of two nodes that has runs is killed."""
    node = cluster.add_node(num_cpus=2)
    out, written = tmp_path / "runs", dict[Path, set[int]]()

    def note() -> int:
        for folder, when in finished(out).items():
            written.setdefault(folder, set()).add(when)
        return len(written)

    with sweep(tmp_path, "--engine", "ray", "--ray-address", cluster.address) as process:
        until(lambda: note() >= 4 or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        cluster.add_node(num_cpus=2)  # so late that what is under way is on the other
        cluster.remove_node(node, allow_graceful=False)
        until(lambda: note() == 12 or process.poll() is not None)
        said = ended(process)
    note()
    assert re.search("was tried again: the node .* was lost", said), said
    assert [len(times) for times in written.values()] == [1] * 12
    assert_same(out, alone)
    assert tables(out) == tables(alone)
    assert len(tables(out)) >= 3


@pytest.mark.slow
@pytest.mark.alone  # a cluster takes both cores
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_on_ray_that_is_stopped_again_and_again_ends_the_same(
    alone: Path, cluster: Any, tmp_path: Path
) -> None:
    cluster.add_node(num_cpus=2)
    out, ray = tmp_path / "runs", ["--engine", "ray", "--ray-address", cluster.address]
    for stop in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
        more = len(finished(out)) + 1  # so that it is stopped at work, not while it starts
        with sweep(tmp_path, *ray) as process:
            wait_for(process, out, more)
            before = finished(out)
            process.send_signal(stop)
            said = process.communicate(timeout=300)[1]
        assert process.returncode != 0
        assert stop != signal.SIGINT or "the same command continues" in said
        assert finished(out).items() >= before.items(), "what was finished is not touched"
    ended(sweep(tmp_path, *ray))
    assert_same(out, alone)


@pytest.mark.slow
@pytest.mark.alone  # a cluster takes both cores
@pytest.mark.filterwarnings("ignore")
def test_nodes_that_do_not_see_the_folder_of_runs_send_them(
    alone: Path, cluster: Any, tmp_path: Path
) -> None:
    """The nodes have another disk at that place; the first of them dies."""
    if subprocess.run([*HIDDEN, "true"], check=False).returncode:
        pytest.skip("needs the right to make a mount namespace")
    out, ray = tmp_path / "runs", ["--engine", "ray", "--ray-address", cluster.address]
    out.mkdir()
    part = {"increments": (5, 10), "seeds": 2}
    with hidden_node(cluster.address, out) as node, sweep(tmp_path, *ray, **part) as process:
        wait_for(process, out, 1)
        before = finished(out)
        node.kill()
        with hidden_node(cluster.address, out):
            said = ended(process, 8)
    assert re.search("was tried again: the node .* was lost", said), said
    assert finished(out).items() >= before.items()
    assert_same(out, alone, 8)


HIDDEN = ["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]


@contextmanager
def hidden_node(address: str, out: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A node that has an empty disk of its own where others have the folder of all runs."""
    ray = f"{sys.executable} -m ray.scripts.scripts start --address={address} --num-cpus=2 --block"
    command = f"mount -t tmpfs none {out} && exec {ray} --disable-usage-stats"
    with subprocess.Popen(
        [*HIDDEN, "sh", "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as node:
        yield node
        node.kill()
