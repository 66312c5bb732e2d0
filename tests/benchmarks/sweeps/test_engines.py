"""The Ray engine against a script of what may happen to a cluster."""

import io
import socket
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.sweeps import engine_ray, retries
from cl_adapters.benchmarks.sweeps.engine_local import run_one
from cl_adapters.benchmarks.sweeps.engine_ray import RayEngine, Told, work
from cl_adapters.benchmarks.sweeps.job_queue import Outcome
from cl_adapters.benchmarks.sweeps.retries import Workers
from cl_adapters.benchmarks.sweeps.run_archive import pack, unpack
from cl_adapters.cli import app
from cl_adapters.errors import InputError, RunError
from cl_adapters.records.run_record import RunRecord, find_runs
from tests.benchmarks import killable
from tests.benchmarks.sweeps.sweeping import assert_same

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

    monkeypatch.setattr("cl_adapters.cache.namespace.write_block", full)
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
