"""Runs many recipes on a Ray cluster; Ray decides where and when.

A run is a task of Ray Core with the CPUs of a run's threads and, if its device is a GPU, one GPU.
It tells when it begins, after each experience, and at last how it ended. Where a node sees the
folder of all runs it writes there, as a worker of this machine would; elsewhere it writes to its
own disk, and the run directory comes back after each experience. A task whose node or process is
lost is given to Ray again with what there is of the run.
"""

import os
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import torch

from cl_adapters import __version__
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.sweeps.job_queue import JobQueue, Outcome
from cl_adapters.benchmarks.sweeps.retries import Watch, Workers, failure, try_run
from cl_adapters.benchmarks.sweeps.run_archive import pack, unpack
from cl_adapters.benchmarks.sweeps.sweep import folder_of
from cl_adapters.errors import InputError

__all__ = ["RayEngine", "Told", "work"]

_TOKEN: Final = ".sweep"  # in the folder of all runs: who reads the right text there shares it
_LOOPBACK: Final = "127.0.0.1"
_LOSSES: Final = 5  # a run whose node was lost this often is not begun once more
_CONNECT_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Told:
    """What a task tells the sweep.

    Attributes:
        node: Address of the machine that it is on.
        place: The run directory, relative to the folder of all runs; None while there is none.
        archive: The run directory, if it is on a disk of the node's own.
        outcome: How the run ended; None while it goes on.
    """

    node: str
    place: Path | None = None
    archive: bytes | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True)
class _Job:
    """What a task needs beside the recipe."""

    out: Path
    token: str
    folder: Path  # that relative paths of recipes start from
    workers: Workers
    version: str = __version__


class RayEngine:
    """Runs recipes as tasks on a Ray cluster.

    Args:
        workers: What each run may use, and which cluster.

    Attributes:
        elsewhere: True: a recipe's device need not be on this machine.

    Raises:
        InputError: If Ray is not installed or the cluster does not answer.
    """

    elsewhere = True

    def __init__(self, workers: Workers) -> None:
        if workers.gpus:
            raise InputError("--gpus is for --engine local: Ray hands out the GPUs of its nodes")
        self._workers = workers
        self._ray = _load()
        self._is_ours = not self._ray.is_initialized()
        if self._is_ours:
            _connect(self._ray, workers.address)

    def notes(self, configs: Sequence[RunConfig]) -> list[str]:
        """Returns what the user may not expect of these runs."""
        nodes = [each["Resources"] for each in self._ray.nodes() if each["Alive"]]
        found = []
        if max(each.get("CPU", 0) for each in nodes) < self._workers.threads:
            found.append(f"no node has the {self._workers.threads} CPUs of a run yet")
        if any(map(self._gpus, configs)) and not any(each.get("GPU") for each in nodes):
            found.append("no node has a GPU yet")
        return [f"{each}; runs wait until one that has joins the cluster" for each in found]

    def run(
        self, configs: Sequence[RunConfig], out: Path, *, retries: int, watch: Watch
    ) -> list[Outcome]:
        """Runs recipes and returns how each ended, in their order."""
        out.mkdir(parents=True, exist_ok=True)
        token = uuid.uuid4().hex
        (out / _TOKEN).write_text(token, "utf-8")
        job = _Job(out.resolve(), token, Path.cwd(), self._workers)
        tasks = [(each, self._gpus(each)) for each in configs]
        sweep = _RaySweep(self._ray, job, out, tasks, JobQueue(configs, retries))
        try:
            return sweep.run(watch)
        finally:
            (out / _TOKEN).unlink(missing_ok=True)

    def close(self) -> None:
        """Leaves the cluster; one that was started for this sweep ends."""
        if self._is_ours:
            self._ray.shutdown()

    def _gpus(self, config: RunConfig) -> int:
        is_anywhere = bool(self._ray.cluster_resources().get("GPU"))
        return int(config.device.startswith("cuda") or (config.device == "auto" and is_anywhere))


def _load() -> Any:  # noqa: ANN401 - Ray is an extra; nothing of it is there without
    try:
        return import_module("ray")
    except ModuleNotFoundError as error:
        raise InputError(
            "engine 'ray' must have the package ray, which is not installed: "
            "pip install 'cl-adapters[ray]'"
        ) from error


def _connect(ray: Any, address: str | None) -> None:  # noqa: ANN401
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unasked
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    where = address or os.environ.get("RAY_ADDRESS")
    rule = "--ray-address must be 'auto', 'local' or HOST:PORT of a running cluster"
    if where and where not in ("auto", "local"):
        host, _, port = where.rpartition(":")
        if not host or not port.isdigit() or "/" in host:
            raise InputError(f"{rule} that this machine is part of, got {where!r}")
        try:  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise InputError(f"{rule}, got {where!r}: {error}") from error
    try:
        _join_or_start(ray, where)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"{rule}, got {where!r}: {_lines(error)[0]}") from error


def _join_or_start(ray: Any, where: str | None) -> None:  # noqa: ANN401
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    if where != "local":
        try:
            ray.init(address=where or "auto", **quiet)
        except ConnectionError:
            if where:
                raise
        else:
            return
    # One of this machine alone: whoever reaches Ray's ports may run code, so it listens to nobody
    # outside. Ray itself does so only where it is told that there will be no cluster.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    vars(import_module("ray._private.ray_constants"))["ENABLE_RAY_CLUSTER"] = False
    ray.init(address="local", _node_ip_address=_LOOPBACK, include_dashboard=False, **quiet)


def _lines(error: Exception) -> list[str]:
    return str(error).strip().splitlines() or [type(error).__name__]


class _RaySweep:
    def __init__(
        self,
        ray: Any,  # noqa: ANN401
        job: _Job,
        out: Path,
        tasks: Sequence[tuple[RunConfig, int]],
        queue: JobQueue,
    ) -> None:
        self._ray, self._job, self._out, self._queue = ray, job, out, queue
        self._configs = [config for config, _ in tasks]
        self._gpus = [gpus for _, gpus in tasks]
        self._task = ray.remote(work)
        self._given: dict[Any, int] = {}  # Ray's generator of what a task tells -> place of recipe
        self._nodes: dict[int, str] = {}  # of those that have begun
        self._losses: dict[int, int] = {}

    def run(self, watch: Watch) -> list[Outcome]:
        try:
            while self._queue.waiting or self._given:
                self._give()
                self._listen(1.0)
                under_way = [self._configs[index] for index in self._nodes]
                watch(under_way, list(self._queue.ended.values()))
        except KeyboardInterrupt:
            self._stop()
            raise
        return self._queue.outcomes()

    def _give(self) -> None:
        """Hands Ray what waits: it queues what there is no room for yet."""
        most = self._job.workers.count or len(self._configs)
        while self._queue.waiting and len(self._given) < most:
            index = self._queue.waiting.popleft()
            config = self._configs[index]
            begun = folder_of(config, self._out)
            # In a list Ray hands over where it is, not what: most tasks do not need it.
            state = [self._ray.put(pack(begun))] if begun else []
            place = begun.relative_to(self._out) if begun else None
            options = {"num_cpus": self._job.workers.threads, "num_gpus": self._gpus[index]}
            task = self._task.options(max_retries=0, **options)
            self._given[task.remote(config, self._job, place, state)] = index

    def _listen(self, seconds: float) -> None:
        """Takes what tasks have told, and waits for it at most so long."""
        ready, _ = self._ray.wait(list(self._given), num_returns=1, timeout=seconds)
        while ready:
            for told in ready:
                self._take(told)
            rest = list(self._given)
            ready = self._ray.wait(rest, num_returns=len(rest), timeout=0)[0] if rest else []

    def _take(self, told: Any) -> None:  # noqa: ANN401
        index = self._given[told]
        try:
            self._note(index, self._ray.get(next(told)))
        except StopIteration:  # after how it ended it tells no more
            self._lose(index, "its task ended without a word")
        except self._ray.exceptions.NodeDiedError:
            node = self._nodes.get(index, "that it was given to")
            self._losses[index] = self._losses.get(index, 0) + 1
            is_fate = self._losses[index] < _LOSSES
            self._lose(index, f"the node {node} was lost", blameless=is_fate)
        except self._ray.exceptions.RayTaskError as error:
            self._lose(index, f"its task failed: {_lines(error)[-1]}")
        except self._ray.exceptions.RayError as error:
            self._lose(index, f"its worker was lost: {_lines(error)[0]}")
        except (InputError, OSError) as error:  # the disk that it is fetched to is full
            self._ray.cancel(told)
            self._end(index, failure(self._configs[index], error))

    def _note(self, index: int, told: Told) -> None:
        self._nodes[index] = told.node
        place = self._out / told.place if told.place else None
        if told.archive is not None and place is not None:
            unpack(told.archive, place)
        if told.outcome is not None and told.outcome.error is None:
            self._end(index, replace(told.outcome, folder=place))
        elif told.outcome is not None:
            error = f"on node {told.node}: {told.outcome.error}"
            self._end(index, replace(told.outcome, error=error))

    def _lose(self, index: int, error: str, *, blameless: bool = False) -> None:
        self._end(index, Outcome(self._configs[index], error=error), blameless=blameless)

    def _end(self, index: int, outcome: Outcome, *, blameless: bool = False) -> None:
        told = next(each for each, place in self._given.items() if place == index)
        del self._given[told]
        self._nodes.pop(index, None)
        self._queue.end(index, outcome, blameless=blameless)

    def _stop(self) -> None:
        """Tells all tasks to stop and gives them time to write down that they did."""
        for told in self._given:
            self._ray.cancel(told)
        until = time.monotonic() + _STOP_SECONDS
        while self._given and time.monotonic() < until:
            self._queue.waiting.clear()
            self._listen(1.0)


def work(config: RunConfig, job: _Job, place: Path | None, state: Sequence[Any]) -> Iterator[Told]:
    """Runs a recipe, or what is left of it, in a process of Ray; the task.

    Args:
        config: The recipe.
        job: What else it needs.
        place: The run directory, relative to the folder of all runs, if the run was begun.
        state: Where Ray keeps what is in it; empty if the run was not begun.
    """
    ray = _load()
    node = ray.util.get_node_ip_address()
    yield Told(node)
    if job.version != __version__:
        error = f"node {node} must have cl-adapters {job.version}, has {__version__}"
        yield Told(node, outcome=Outcome(config, error=error))
        return
    torch.set_num_threads(job.workers.threads)
    with suppress(OSError):  # without that folder a relative path will be reported as missing
        os.chdir(job.folder)
    if _is_shared(job):
        for step in try_run(config, job.out, job.workers):
            yield _told(step, config, node, job.out)
        return
    with tempfile.TemporaryDirectory(prefix="cl-adapters-") as own:
        out = Path(own)
        if place is not None and state:
            unpack(ray.get(state[0]), out / place)
        for step in try_run(config, out, job.workers):
            told = _told(step, config, node, out)
            yield replace(told, archive=pack(out / told.place) if told.place else None)


def _is_shared(job: _Job) -> bool:
    try:
        return (job.out / _TOKEN).read_text("utf-8") == job.token
    except OSError:
        return False


def _told(step: Path | Outcome, config: RunConfig, node: str, out: Path) -> Told:
    outcome = step if isinstance(step, Outcome) else None
    folder = folder_of(config, out) if isinstance(step, Outcome) else step
    return Told(node, folder.relative_to(out) if folder else None, outcome=outcome)
