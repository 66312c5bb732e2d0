"""Runs many recipes at once, in worker processes of this machine.

Every run continues where it stopped, so a worker may be lost at any moment: the pool is made anew
and what was under way is taken up again. Workers end with their parent, however that ends.
"""

import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, Final

from cl_adapters.benchmarks.images import ImageSource
from cl_adapters.benchmarks.prepare import PreparedRun, open_backbone, open_images, prepare
from cl_adapters.benchmarks.recipe import RunConfig
from cl_adapters.benchmarks.runner import run
from cl_adapters.benchmarks.watch import Announcer
from cl_adapters.errors import InputError, RunError
from cl_adapters.memo import open_memo

__all__ = ["Outcome", "Watch", "Workers", "check", "run_local", "run_one"]

_LOST: Final = "its worker process was ended from outside, by a signal or for lack of memory"


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        config: Its recipe.
        folder: Its run directory; None if it did not finish.
        error: The sentence that ended it; None if it finished.
        final: Whether another try would end the same way.
    """

    config: RunConfig
    folder: Path | None = None
    error: str | None = None
    final: bool = False


@dataclass(frozen=True)
class Workers:
    """How many runs at once, and what each of them may use.

    Attributes:
        count: Number of processes.
        threads: CPU threads of each.
        gpus: Indices of GPUs, handed out one a worker; empty leaves devices as they are.
        memo: Folder that they share for what frozen parts compute, or `off`; None: as `open_memo`.
    """

    count: int = 1
    threads: int = 1
    gpus: tuple[int, ...] = ()
    memo: str | None = None


# Called about once a second with the recipes that are under way and with what has ended so far.
Watch = Callable[[Sequence[RunConfig], Sequence[Outcome]], None]


def run_local(
    configs: Sequence[RunConfig],
    out: Path,
    workers: Workers | None = None,
    *,
    retries: int = 1,
    watch: Watch | None = None,
) -> list[Outcome]:
    """Runs recipes in worker processes and returns how each ended, in their order.

    Args:
        configs: The recipes.
        out: Folder of all runs.
        workers: How many at once; None takes one.
        retries: How often a run is taken up again that failed for a reason outside its recipe.
        watch: Whom to tell.
    """
    sweep = _LocalSweep(configs, out, workers or Workers(), retries)
    return sweep.run(watch or (lambda *_: None))


class _LocalSweep:
    def __init__(
        self, configs: Sequence[RunConfig], out: Path, workers: Workers, retries: int
    ) -> None:
        self._configs, self._out = configs, out
        self._workers, self._retries = workers, retries
        self._waiting = deque(range(len(configs)))
        self._tries: Counter[int] = Counter()
        # Were under way when a worker was lost: they run alone, until it is clear whose it was.
        self._suspects: set[int] = set()
        self._ended: dict[int, Outcome] = {}

    def run(self, watch: Watch) -> list[Outcome]:
        while self._waiting:
            with _pool(self._workers) as pool:
                self._use(pool, watch)
        return [self._ended[index] for index in range(len(self._configs))]

    def _use(self, pool: Executor, watch: Watch) -> None:
        """Runs what is waiting until all has ended or a worker is lost."""
        under_way: dict[Future[Outcome], int] = {}
        while self._waiting or under_way:
            lost = not self._submit(pool, under_way)
            done, _ = wait(under_way, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                if isinstance(future.exception(), BrokenProcessPool):
                    lost = True
                else:
                    self._end(under_way.pop(future), future.result())
            watch([self._configs[index] for index in under_way.values()], self._outcomes())
            if lost:
                self._blame(list(under_way.values()))
                return

    def _submit(self, pool: Executor, under_way: dict[Future[Outcome], int]) -> bool:
        while self._waiting and len(under_way) < (1 if self._suspects else self._workers.count):
            config = self._configs[self._waiting[0]]
            try:
                future = pool.submit(run_one, config, self._out, self._workers.memo)
            except BrokenProcessPool:
                return False
            under_way[future] = self._waiting.popleft()
        return True

    def _end(self, index: int, outcome: Outcome) -> None:
        self._suspects.discard(index)
        self._tries[index] += 1
        if outcome.error is None or outcome.final or self._tries[index] > self._retries:
            self._ended[index] = outcome
        else:
            self._waiting.append(index)

    def _blame(self, indices: list[int]) -> None:
        if len(indices) == 1:
            self._end(indices[0], Outcome(self._configs[indices[0]], error=_LOST))
            return
        self._suspects.update(indices)
        self._waiting.extendleft(reversed(indices))

    def _outcomes(self) -> list[Outcome]:
        return list(self._ended.values())


@contextmanager
def _pool(workers: Workers) -> Iterator[Executor]:
    context = get_context("spawn")  # torch's threads and CUDA do not survive a fork
    gpus: Queue[int] | None = context.Queue() if workers.gpus else None
    for place in range(workers.count):
        if gpus is not None:
            gpus.put(workers.gpus[place % len(workers.gpus)])
    arguments = (os.getpid(), workers.threads, gpus)
    pool = ProcessPoolExecutor(workers.count, context, initializer=_begin, initargs=arguments)
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # while it waits for work; see `run_one`
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # A killed parent would leave its workers waiting for work for ever.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def check(config: RunConfig) -> ImageSource:
    """Checks that a recipe can run, before anything is written; returns its images.

    Raises:
        InputError: If anything that it names is unknown, missing or does not fit.
    """
    return _prepared(config).source


def run_one(config: RunConfig, out: Path, memo: str | None = None) -> Outcome:
    """Runs a recipe, or what is left of it, in this process; a worker's work.

    Raises:
        KeyboardInterrupt: If Ctrl-C was pressed; the run can be continued.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return Outcome(config, folder=run(_prepared(config, memo), out))
    except InputError as error:
        return Outcome(config, error=str(error), final=True)
    except (RunError, OSError) as error:
        return Outcome(config, error=str(error))
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything; other runs go on
        return Outcome(config, error=f"{type(error).__name__}: {error}", final=True)
    finally:
        signal.signal(signal.SIGINT, before)


def _prepared(config: RunConfig, memo: str | None = "off") -> PreparedRun:
    source = _kept(
        "images", (config.source, config.protocol, config.validation), lambda: open_images(config)
    )
    weights = (config.backbone, config.weights, config.image_size)
    backbone = _kept("backbone", weights, lambda: open_backbone(config))
    announcer = _kept("announcer", None, Announcer)
    opened = _kept("memo", memo, lambda: open_memo(memo))
    return prepare(config, source=source, backbone=backbone, announcer=announcer, memo=opened)


_LAST: Final[dict[str, tuple[object, Any]]] = {}


def _kept(kind: str, key: object, make: Callable[[], Any]) -> Any:  # noqa: ANN401
    # The next run of a worker mostly has the same images and weights.
    if kind not in _LAST or _LAST[kind][0] != key:
        _LAST[kind] = (key, make())
    return _LAST[kind][1]
