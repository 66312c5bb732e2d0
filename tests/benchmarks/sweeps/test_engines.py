"""The Ray engine: against the local one on a real cluster that loses nodes, and against a script."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.sweeps import engine_ray, retries
from cl_adapters.benchmarks.sweeps.engine_local import _pool, run_one
from cl_adapters.benchmarks.sweeps.engine_ray import RayEngine, Told, work
from cl_adapters.benchmarks.sweeps.job_queue import Outcome
from cl_adapters.benchmarks.sweeps.retries import Workers
from cl_adapters.benchmarks.sweeps.run_archive import pack, unpack
from cl_adapters.cli import app
from cl_adapters.errors import InputError, RunError
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.records.tables import read_predictions
from cl_adapters.reports.groups import group_runs
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.tables.comparison import table_files
from tests.benchmarks import killable

OFF = Workers(cache="off")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "rya"], "unknown engine 'rya'; did you mean 'ray'"),
        (["--engine", "rya", "--dry-run"], "unknown engine 'rya'; did you mean 'ray'"),
        (["--ray-address", "auto"], "--ray-address is for --engine ray, got it with 'local'"),
        (["--engine", "ray", "--gpus", "0"], "--gpus is for --engine local"),
        (["--engine", "ray"], "must have the package ray, which is not installed: pip install"),
        (["--cache-gigabytes", "0"], "cache must be larger than 0 gigabytes, got 0"),
    ],
)
def test_what_no_engine_can_do_ends_in_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, ["sweep", "--strategy", "simplecil", *arguments])
    assert found.exit_code == 2
    assert message in found.stderr
    assert found.stderr.count("\n") <= 2
    assert not list(tmp_path.iterdir())


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:{port}", "of a running cluster, got '127.0.0.1:[0-9]+': .*refused"),
        ("127.0.0.1:99999", "of a running cluster, got '127.0.0.1:99999': "),
        ("head", "that this machine is part of, got 'head'"),
        ("ray://127.0.0.1:10001", "that this machine is part of, got 'ray://127.0.0.1:10001'"),
    ],
)
def test_a_wrong_address_is_found_before_ray_tries_for_minutes(
    address: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    with pytest.raises(InputError, match=message):
        RayEngine(Workers(address=address.format(port=closed_port())))


class Lost(Exception):  # noqa: N818 - a thing that Ray lost
    """Stands for `RayError`."""


class NodeLost(Lost):
    """Stands for `NodeDiedError`."""


class TaskFailed(Lost):
    """Stands for `RayTaskError`."""


class ScriptedRay:
    """Stands for Ray: tells of each task what a script holds for its next try."""

    def __init__(self, script: dict[int, list[str]], gpus: int = 0) -> None:
        self.script, self.gpus = script, gpus
        self.tries: Counter[int] = Counter()
        self.asked: list[dict[str, Any]] = []
        self.exceptions = SimpleNamespace(
            RayError=Lost, NodeDiedError=NodeLost, RayTaskError=TaskFailed
        )

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 4.0, **({"GPU": float(self.gpus)} if self.gpus else {})}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": self.cluster_resources()}]

    def remote(self, _: object) -> Any:
        def options(**asked: Any) -> Any:
            self.asked.append(asked)
            return SimpleNamespace(remote=self.task)

        return SimpleNamespace(options=options)

    def task(self, config: RunConfig, *_: object) -> Iterator[object]:
        self.tries[config.seed] += 1
        ends = self.script.get(config.seed, [])
        end = ends.pop(0) if ends else "good"
        error: dict[str, Exception] = {
            "node": NodeLost(),
            "process": Lost("it died"),
            "?": TaskFailed(),
        }
        good = Outcome(config, folder=Path("x"))
        bad = Outcome(config, error=end, final=end == "bad recipe")
        outcome = good if end == "good" else bad
        last = error.get(end, Told("n", Path("x"), outcome=outcome))
        return iter([Told("n", Path("x")), last])

    def wait(self, given: list[Any], **_: object) -> tuple[list[Any], list[Any]]:
        return given[:1], given[1:]

    def get(self, told: Any) -> Any:
        if isinstance(told, Exception):
            raise told
        return told


def scripted(
    ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch, out: Path, **changes: Any
) -> tuple[list[Outcome], list[int]]:
    monkeypatch.setitem(sys.modules, "ray", ray)
    configs = [RunConfig(strategy="simplecil", seed=seed, **changes) for seed in range(4)]
    watched: list[int] = []
    engine = RayEngine(Workers(threads=2))
    outcomes = engine.run(
        configs, out, retries=1, watch=lambda _, ended: watched.append(len(ended))
    )
    assert watched[-1] == 4
    assert sorted(watched) == watched
    return outcomes, [ray.tries[seed] for seed in range(4)]


def test_lost_nodes_cost_no_try_and_lost_processes_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = {0: ["node"] * 3, 1: ["process"] * 9, 2: ["disk full", "?"], 3: ["bad recipe"]}
    outcomes, tries = scripted(ScriptedRay(script), monkeypatch, tmp_path / "runs")
    assert tries == [4, 2, 2, 1]
    assert [each.error for each in outcomes] == [
        None,
        "its worker was lost: it died",
        "its task failed: TaskFailed",
        "on node n: bad recipe",
    ]
    assert outcomes[0].notes == ("was tried again: the node n was lost",) * 3
    assert outcomes[2].notes == ("was tried again: on node n: disk full",)
    assert outcomes[0].folder == tmp_path / "runs" / "x"
    assert not list((tmp_path / "runs").iterdir()), "nothing of the sweep itself stays"


def test_a_run_that_every_node_dies_of_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outcomes, tries = scripted(ScriptedRay({2: ["node"] * 99}), monkeypatch, tmp_path)
    assert outcomes[2].error == "the node n was lost"
    # Five losses, of which the last is the first to count; then the one more try of `retries`.
    assert tries == [1, 1, 6, 1]


@pytest.mark.parametrize(
    ("device", "gpus", "asked", "notes"),
    [
        ("cpu", 8, 0, []),
        ("cuda", 8, 1, []),
        ("auto", 8, 1, []),
        ("auto", 0, 0, []),
        ("cuda", 0, 1, ["no node has a GPU yet; runs wait until one that has joins the cluster"]),
    ],
)
def test_ray_is_asked_for_the_threads_and_the_gpu_of_a_run(
    device: str,
    gpus: int,
    asked: int,
    notes: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    ray = ScriptedRay({}, gpus)
    scripted(ray, monkeypatch, tmp_path, device=device)
    assert ray.asked == [{"max_retries": 0, "num_cpus": 2, "num_gpus": asked}] * 4
    config = RunConfig(strategy="simplecil", device=device)
    assert RayEngine(Workers()).notes([config]) == notes
    too_many = "no node has the 5 CPUs of a run yet"
    assert RayEngine(Workers(threads=5)).notes([config])[0].startswith(too_many)


LAE = killable.config("lae")


@pytest.fixture
def stripes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a recipe names, its images are the 72 of `killable`."""
    monkeypatch.setattr(retries, "_LAST", {})
    monkeypatch.setattr(retries, "open_images", lambda _: killable.SOURCE)


@pytest.fixture
def local(stripes: None, tmp_path: Path) -> Path:
    """A finished run of LAE, three experiences."""
    assert run_one(LAE, tmp_path / "local", OFF).error is None
    return tmp_path / "local"


def predictions(out: Path) -> dict[str, pd.DataFrame]:
    return {str(each.relative_to(out)): read_predictions(each) for each in find_runs([out])}


def assert_same(found: Path, expected: Path, part: int | None = None) -> None:
    """The same records and predictions; in one folder there may be a part of the runs."""
    one, other = predictions(found), predictions(expected)
    assert len(one) == (part or len(other))
    for name, frame in one.items():
        pd.testing.assert_frame_equal(frame, other[name])
        records = [RunRecord.read(out / name) for out in (found, expected)]
        for record in records:
            record.seconds, record.started, record.ended = 0, "", ""
        assert records[0] == records[1]


def test_a_node_with_a_disk_of_its_own_sends_the_run_and_goes_on_with_what_there_is(
    local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = SimpleNamespace(
        util=SimpleNamespace(get_node_ip_address=lambda: "n"), get=lambda ref: ref
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    config, elsewhere = LAE, tmp_path / "elsewhere"
    job = engine_ray._Job(elsewhere, "token", Path.cwd(), OFF)
    steps = work(config, job, None, [])
    assert next(steps) == Told("n")
    first = next(steps)
    steps.close()  # as if the node were lost after an experience
    assert first.place is not None
    assert first.archive is not None
    unpack(first.archive, tmp_path / "runs" / first.place)
    assert RunRecord.read(tmp_path / "runs" / first.place).experiences_done == 1
    # It begins, then an experience that another follows, then the end.
    rest = list(work(config, job, first.place, [pack(tmp_path / "runs" / first.place)]))
    assert [each.outcome is None for each in rest] == [True, True, False]
    assert rest[-1].outcome is not None
    assert rest[-1].outcome.error is None
    unpack(rest[-1].archive or b"", tmp_path / "runs" / first.place)
    assert_same(tmp_path / "runs", local)
    assert not elsewhere.exists()


def test_a_failed_run_comes_back_with_its_error(
    stripes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = SimpleNamespace(util=SimpleNamespace(get_node_ip_address=lambda: "n"))
    monkeypatch.setitem(sys.modules, "ray", ray)

    def diverge(*_: object, **__: object) -> None:
        raise RunError("the loss is no longer finite")

    monkeypatch.setattr("cl_adapters.benchmarks.running.session.Session._train", diverge)
    *_, told = work(LAE, engine_ray._Job(tmp_path / "no", "token", Path.cwd(), OFF), None, [])
    assert told.outcome is not None
    assert told.place is not None
    unpack(told.archive or b"", tmp_path / told.place)
    record = RunRecord.read(tmp_path / told.place)
    assert (record.state, record.error) == ("failed", "the loss is no longer finite")
    assert (told.outcome.error, told.outcome.final) == (record.error, False)


def test_another_version_on_a_node_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = SimpleNamespace(util=SimpleNamespace(get_node_ip_address=lambda: "n"))
    monkeypatch.setitem(sys.modules, "ray", ray)
    job = engine_ray._Job(tmp_path, "token", Path.cwd(), OFF, version="0")
    _, told = work(LAE, job, None, [])
    assert "must have cl-adapters 0, has " in str(told.outcome and told.outcome.error)


def test_an_archive_takes_the_place_of_what_is_there_and_of_nothing_else(
    local: Path, tmp_path: Path
) -> None:
    (folder,) = find_runs([local])
    copy = tmp_path / "copy"
    (copy / "checkpoints" / "inside-0001" / "000003").mkdir(parents=True)
    (copy / "checkpoints" / "inside-0001" / "000003" / "checkpoint.json").write_text("old")
    unpack(pack(folder), copy)

    def files(place: Path) -> dict[str, bytes]:
        found = (path for path in place.rglob("*") if path.is_file() and path.name != ".lock")
        return {str(path.relative_to(place)): path.read_bytes() for path in found}

    assert files(copy) == files(folder)
    assert not (copy / "checkpoints" / "inside-0001").exists()


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "checkpoints/../../outside"])
def test_an_archive_with_a_file_outside_its_folder_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for each in ("run.json", name):
            archive.addfile(tarfile.TarInfo(each), io.BytesIO())
    with pytest.raises(InputError, match=f"must hold files of its run alone, got '{name}'"):
        unpack(data.getvalue(), tmp_path / "run")
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} <= {".lock"}


def test_what_a_memo_in_trouble_says_reaches_the_user_once(
    stripes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = tmp_path / "cache"

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cl_adapters.cache.blocks._write_block", full)
    (tmp_path / "recipe.toml").write_text("image_size = 16")
    arguments = ["--strategy", "simplecil", "--seeds", "2", "--cache", str(where)]
    arguments += ["--recipe", str(tmp_path / "recipe.toml")]
    monkeypatch.setattr(
        "cl_adapters.benchmarks.sweeps.engine_local.LocalEngine.run",
        lambda _, configs, out, **given: in_turn(configs, out, Workers(cache=str(where)), **given),
    )
    found = CliRunner().invoke(app, ["sweep", *arguments, "--out", str(tmp_path / "runs")])
    assert found.exit_code == 0, found.output
    assert found.stderr.count(f"{where} cannot keep what was computed: [Errno 28]") == 1


def in_turn(
    configs: Sequence[RunConfig], out: Path, workers: Workers, *, watch: Any, **_: object
) -> list[Outcome]:
    """An engine without processes."""
    outcomes: list[Outcome] = []
    for config in configs:
        outcomes.append(run_one(config, out, workers))
        watch([], outcomes)
    return outcomes


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
    folder: Path, *arguments: str, increments: Sequence[int] = (2, 5, 10), seeds: int = 3
) -> "subprocess.Popen[str]":
    """2 strategies x 3 streams x 3 seeds on digits with the embedded backbone, or a part of it."""
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


def ended(process: "subprocess.Popen[str]", runs: int = 18) -> str:
    """Waits for a sweep to end well, and returns what it said."""
    said = process.communicate(timeout=1800)[1]
    assert process.returncode == 0, said
    assert f"{runs} of {runs} runs are finished" in said
    return said


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
    deadline = time.monotonic() + 1800
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
        until(lambda: note() == 18 or process.poll() is not None)
        said = ended(process)
    note()
    assert re.search("was tried again: the node .* was lost", said), said
    assert [len(times) for times in written.values()] == [1] * 18
    assert_same(out, alone)
    assert tables(out) == tables(alone)
    assert len(tables(out)) >= 3


@pytest.mark.slow
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
@pytest.mark.filterwarnings("ignore")
def test_nodes_that_do_not_see_the_folder_of_runs_send_them(
    alone: Path, cluster: Any, tmp_path: Path
) -> None:
    """The nodes have another disk at that place; the first of them dies."""
    if subprocess.run([*HIDDEN, "true"], check=False).returncode:
        pytest.skip("needs the right to make a mount namespace")
    out, ray = tmp_path / "runs", ["--engine", "ray", "--ray-address", cluster.address]
    out.mkdir()
    part = {"increments": (2, 5), "seeds": 2}
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
