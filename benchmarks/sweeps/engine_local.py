"""Runs many recipes at once, in worker processes of this machine.

Every run continues where it stopped, so a worker may be lost at any moment: the pool is made anew
and what was under way is taken up again. Workers end with their parent, however that ends.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Final, cast

from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.sweeps.job_queue import JobQueue, Outcome
from cl_adapters.benchmarks.sweeps.retries import Watch, Workers, try_run
from cl_adapters.loading import call_loaded

__all__ = ["LocalEngine", "run_one"]

_BEGIN: Final = f"{__name__}:_begin"
_LOST: Final = "its worker process was ended from outside, by a signal or for lack of memory"


class LocalEngine:
    """Runs recipes in worker processes of this machine.

    Args:
        workers: How many at once; by default one a GPU, or as many as have cores.

    Attributes:
        elsewhere: False: devices are those of this machine.
    """

    elsewhere = False

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        room = len(workers.gpus) or max(1, (cores or 1) // workers.threads)
        self._count = workers.count or room

    def notes(self, configs: Sequence[RunConfig]) -> list[str]:
        """Returns what the user may not expect of these runs."""
        del configs
        return []

    def run(
        self, configs: Sequence[RunConfig], out: Path, *, retries: int, watch: Watch
    ) -> list[Outcome]:
        """Runs recipes and returns how each ended, in their order."""
        sweep = _LocalSweep(configs, out, self._workers, self._count, JobQueue(configs, retries))
        return sweep.run(watch)

    def close(self) -> None:
        """Ends what the engine needs between runs: nothing."""


class _LocalSweep:
    def __init__(
        self,
        configs: Sequence[RunConfig],
        out: Path,
        workers: Workers,
        count: int,
        queue: JobQueue,
    ) -> None:
        self._configs, self._out = configs, out
        self._workers, self._count, self._queue = workers, count, queue
        # Were under way when a worker was lost: they run alone, until it is clear whose it was.
        self._suspects: set[int] = set()

    def run(self, watch: Watch) -> list[Outcome]:
        while self._queue.waiting:
            with _pool(self._count, self._workers) as pool:
                self._use(pool, watch)
        return self._queue.outcomes()

    def _use(self, pool: Executor, watch: Watch) -> None:
        """Runs what is waiting until all has ended or a worker is lost."""
        under_way: dict[Future[Outcome], int] = {}
        while self._queue.waiting or under_way:
            lost = not self._submit(pool, under_way)
            done, _ = wait(under_way, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                if isinstance(future.exception(), BrokenProcessPool):
                    lost = True
                else:
                    self._end(under_way.pop(future), future.result())
            ended = list(self._queue.ended.values())
            watch([self._configs[index] for index in under_way.values()], ended)
            if lost:
                self._blame(list(under_way.values()))
                return

    def _submit(self, pool: Executor, under_way: dict[Future[Outcome], int]) -> bool:
        waiting = self._queue.waiting
        while waiting and len(under_way) < (1 if self._suspects else self._count):
            config = self._configs[waiting[0]]
            try:
                future = pool.submit(run_one, config, self._out, self._workers)
            except BrokenProcessPool:
                return False
            under_way[future] = waiting.popleft()
        return True

    def _end(self, index: int, outcome: Outcome) -> None:
        self._suspects.discard(index)
        self._queue.end(index, outcome)

    def _blame(self, indices: list[int]) -> None:
        if len(indices) == 1:
            self._end(indices[0], Outcome(self._configs[indices[0]], error=_LOST))
            return
        self._suspects.update(indices)
        self._queue.waiting.extendleft(reversed(indices))


def run_one(config: RunConfig, out: Path, workers: Workers | None = None) -> Outcome:
    """Runs a recipe, or what is left of it, in this process.

    Args:
        config: The recipe.
        out: Folder of all runs.
        workers: What it may use.

    Raises:
        KeyboardInterrupt: If Ctrl-C was pressed; the run can be continued.
    """
    *_, end = try_run(config, out, workers or Workers())
    return cast("Outcome", end)


@contextmanager
def _pool(count: int, workers: Workers) -> Iterator[Executor]:
    context = get_context("spawn")  # torch's threads and CUDA do not survive a fork
    gpus: Queue[int] | None = context.Queue() if workers.gpus else None
    for place in range(count):
        if gpus is not None:
            gpus.put(workers.gpus[place % len(workers.gpus)])
    arguments = (_BEGIN, os.getpid(), workers.threads, gpus)
    pool = ProcessPoolExecutor(count, context, initializer=call_loaded, initargs=arguments)
    try:
        yield pool
    except KeyboardInterrupt:
        for child in active_children():
            if child.pid is not None:
                os.kill(child.pid, signal.SIGINT)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(parent: int, threads: int, gpus: "Queue[int] | None") -> None:
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpus.get())
    import torch  # noqa: PLC0415 - after the variable that it reads

    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # while it waits for work; see `try_run`
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # A killed parent would leave its workers waiting for work for ever.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
