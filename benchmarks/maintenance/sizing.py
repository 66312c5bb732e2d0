"""What a study costs on which machine: `python -m cl_adapters.benchmarks.maintenance.sizing`.

A study is twelve methods times five seeds over one stream on a frozen ViT-B/16 at 224 pixels. The
unit of work is a pass: one image forward through the bare network. Phases cost what they cost in
passes when measured; a machine does so many passes a second. The schedule is a discrete-event
simulation: workers take the longest run that is left, and all workers at one cache share its
bandwidth. `--rates RUNS` measures the phases of one's own runs.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import typer

from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.errors import InputError
from cl_adapters.records.event_kinds import Evaluation, Phase
from cl_adapters.records.events import read_events
from cl_adapters.records.run_record import RunRecord, find_runs

__all__ = [
    "Job",
    "Machine",
    "Schedule",
    "Stream",
    "jobs_of",
    "measured_rates",
    "simulate",
    "speeds",
    "tables",
]

SEEDS: Final = 5
EPOCHS: Final = 5
ALIGNMENT_EPOCHS: Final = 30  # of MOS
TOKENS: Final = 197 * 768 * 2  # bytes of an image's tokens in bf16, which SEMA reads of the cache
FEATURES: Final = 768 * 4
_HOUR: Final = 3600.0

# Passes an image, measured with --rates on CIFAR-100 (100 + 20 images a class), ViT-Tiny, bf16, one
# core of a shared machine; one pass is what SimpleCIL's evaluation takes.
STEP: Final = {"finetune": 2.58, "joint": 2.75, "lae": 2.91, "mos": 2.86, "sema": 3.14}
GROWN_STEP: Final = 0.84  # of SEMA on memoised tokens: the last three blocks
DESCRIPTOR: Final = 0.59
SCAN: Final = 0.24
STATISTICS: Final = 1.18  # of MOS, after an experience
PROTOTYPES: Final = 1.14  # of MOS, from experience 1 on
EVALUATION: Final = {"adapted": 1.12, "lae": 2.41, "mos": 2.02}
LAST_BLOCKS: Final = 0.25  # three of twelve
PREFIX: Final = 0.75


@dataclass(frozen=True)
class Stream:
    """What a study runs over.

    Attributes:
        name: For people.
        train: Images to learn from.
        test: Images to evaluate on.
        classes: Classes.
        experiences: Experiences, of equal size.
    """

    name: str
    train: int
    test: int
    classes: int
    experiences: int = 10

    @property
    def evaluated(self) -> float:
        """Images of all evaluations: after each experience all that were brought so far."""
        return self.test * (self.experiences + 1) / 2

    @property
    def later(self) -> float:
        """Training images of all experiences but the first."""
        return self.train * (1 - 1 / self.experiences)

    @property
    def alignment_steps(self) -> float:
        """Steps of MOS's head alignment: one a class seen and epoch, from experience 1 on."""
        seen = sum(range(2, self.experiences + 1)) * self.classes / self.experiences
        return ALIGNMENT_EPOCHS * seen


@dataclass(frozen=True)
class Work:
    """What one run of a method asks for.

    Attributes:
        passes: Through the network.
        bytes: Read of the cache.
        steps: Of a head alone, one after the other.
        fill: Passes that the cache saves all but the first run.
        measured: Whether the method's phases were measured; else they follow from its definition.
    """

    passes: float
    bytes: float = 0.0
    steps: float = 0.0
    fill: float = 0.0
    measured: bool = True


def methods(stream: Stream) -> dict[str, Work]:
    """Returns the work of a run of each of the twelve methods."""
    train, later, seen = stream.train, stream.later, stream.evaluated
    first = train - later
    adapted = EVALUATION["adapted"] * seen
    step = STEP["finetune"] * EPOCHS * train
    lae = STEP["lae"] * (EPOCHS * first + 2 * later) + later + EVALUATION["lae"] * seen
    mos = (STEP["mos"] * EPOCHS + STATISTICS) * train + PROTOTYPES * later
    sema = STEP["sema"] * EPOCHS * first + GROWN_STEP * EPOCHS * later
    sema += (DESCRIPTOR + SCAN) * train + LAST_BLOCKS * seen
    images = stream.train + stream.test
    ranpac = STEP["finetune"] * 20 * first + EVALUATION["adapted"] * images  # epochs; then once
    return {
        "simplecil": Work(0, FEATURES * (train + seen), fill=images),
        "ranpac": Work(ranpac, FEATURES * (seen - stream.test), measured=False),
        "finetune": Work(step + adapted),
        "joint": Work(STEP["joint"] * EPOCHS * train + EVALUATION["adapted"] * stream.test),
        "lae adapter": Work(lae),
        "lae lora": Work(lae, measured=False),
        "lae prefix": Work(lae, measured=False),
        "mos": Work(mos + EVALUATION["mos"] * seen, steps=stream.alignment_steps),
        "sema": Work(sema, TOKENS * (EPOCHS * later + seen), fill=PREFIX * images),
        "replay": Work(2 * step + adapted, measured=False),
        "ewc": Work(step + STEP["finetune"] * train + adapted, measured=False),
        "lwf": Work(step + EPOCHS * train + adapted, measured=False),
    }


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a study runs.

    Attributes:
        name: For people.
        workers: Workers at each cache.
        memos: Memos, one a node or one for all.
        passes: Passes a second of a worker.
        step: Seconds of one step of a head alone.
        bandwidth: Bytes a second of each cache.
        start: Seconds before a run touches its first image.
        unit: What a worker is.
    """

    name: str
    workers: int
    passes: float
    step: float
    memos: int = 1
    bandwidth: float = 2e9
    start: float = 8.0
    unit: str = "GPU"


@dataclass(frozen=True)
class Job:
    """A run: seconds on a worker that never waits, and bytes that it reads meanwhile, evenly."""

    name: str
    seconds: float
    bytes: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """How a set of jobs went.

    Attributes:
        seconds: Until the last one ended.
        work: Seconds that they would have taken without waiting, added up.
        held: Seconds that workers were taken, waiting for the cache included.
    """

    seconds: float
    work: float
    held: float


def speeds(demands: Sequence[float], bandwidth: float) -> list[float]:
    """Returns the speed of jobs at one cache, 1 for a job that never waits.

    Max-min fair: who asks for less than an even share gets it, the others share what is left.

    Args:
        demands: Bytes a second that each job would read at full speed.
        bandwidth: Bytes a second in all.

    Example:
        >>> speeds([1.0, 4.0, 7.0], 9.0)
        [1.0, 1.0, 0.5714285714285714]
    """
    found = [1.0] * len(demands)
    left = bandwidth
    order = sorted(range(len(demands)), key=lambda place: demands[place])
    for done, place in enumerate(order):
        share = min(demands[place], left / (len(order) - done))
        found[place] = share / demands[place] if demands[place] else 1.0
        left -= share
    return found


def simulate(jobs: Sequence[Job], workers: Sequence[int], bandwidth: float) -> Schedule:
    """Runs jobs on workers, the longest first, and returns how it went.

    Args:
        jobs: The jobs.
        workers: Number of workers at each cache.
        bandwidth: Bytes a second of each cache.
    """
    waiting = [(-job.seconds, place) for place, job in enumerate(jobs)]
    heapq.heapify(waiting)
    free = [cache for cache, count in enumerate(workers) for _ in range(count)]
    active: dict[int, tuple[int, float]] = {}  # by job: its cache, and the share that is left
    now = held = 0.0
    while waiting or active:
        while waiting and free:
            at = [cache for cache, _ in active.values()]
            best = min(free, key=at.count)  # where the fewest are at work
            free.remove(best)
            active[heapq.heappop(waiting)[1]] = (best, 1.0)
        pace = dict(_paces(jobs, active, bandwidth))
        step = min(left * jobs[place].seconds / pace[place] for place, (_, left) in active.items())
        now += step
        held += step * len(active)
        for place, (cache, left) in list(active.items()):
            rest = left - step * pace[place] / jobs[place].seconds
            if rest <= 1e-9:
                del active[place]
                free.append(cache)
            else:
                active[place] = (cache, rest)
    return Schedule(now, sum(job.seconds for job in jobs), held)


def _paces(
    jobs: Sequence[Job], active: Mapping[int, tuple[int, float]], bandwidth: float
) -> Iterator[tuple[int, float]]:
    for cache in {cache for cache, _ in active.values()}:
        places = [place for place, (at, _) in active.items() if at == cache]
        demands = [jobs[place].bytes / jobs[place].seconds for place in places]
        yield from zip(places, speeds(demands, bandwidth), strict=True)


def jobs_of(stream: Stream, machine: Machine) -> tuple[list[Job], list[Job]]:
    """Returns the runs that fill the memos, and those that find them full."""
    fill, rest = [], []
    for name, work in methods(stream).items():
        seconds = machine.start + work.passes / machine.passes + work.steps * machine.step
        rest += [Job(name, seconds, work.bytes)] * SEEDS
        if work.fill:
            first = Job(name, seconds + work.fill / machine.passes, work.bytes)
            fill += [first] * machine.memos
            rest = rest[:-1]
    return fill, rest


def study(stream: Stream, machine: Machine) -> Schedule:
    """Returns how a study goes: first the runs that fill each cache, then all others."""
    workers = [machine.workers] * machine.memos
    fill, rest = (simulate(each, workers, machine.bandwidth) for each in jobs_of(stream, machine))
    return Schedule(fill.seconds + rest.seconds, fill.work + rest.work, fill.held + rest.held)


STREAMS: Final = (
    Stream("CIFAR-100 B0-Inc10", 50_000, 10_000, 100),
    Stream("ImageNet-R B0-Inc20", 24_000, 6_000, 200),
)


def machines(gpu: float, cores: int) -> list[Machine]:
    """Returns the machines of the page.

    Args:
        gpu: Passes a second of a GPU.
        cores: Of the CPU box.
    """
    one = Machine(name="1 GPU", workers=1, passes=gpu, step=0.0005)
    return [
        # 214 ms a pass in bf16 and 3 ms a step of a head over 768 features, measured on one core.
        Machine(
            name=f"CPU box, {cores} cores", workers=cores, passes=1 / 0.214, step=0.003, unit="core"
        ),
        one,
        replace(one, name="8-GPU node", workers=8),
        replace(one, name="10 nodes, a cache each", workers=8, memos=10),
        replace(one, name="10 nodes, one cache", workers=80),
    ]


def tables(gpu: float = 2000.0, cores: int = 32) -> str:
    """Returns the tables of docs/sizing.md."""
    parts = [_work_table(stream) for stream in STREAMS]
    parts += [_machine_table(stream, machines(gpu, cores)) for stream in STREAMS]
    return "\n".join([*parts, _scaling_table(STREAMS[0], gpu)])


def _work_table(stream: Stream) -> str:
    rows = [
        [
            name + ("" if work.measured else " *"),
            f"{work.passes / 1e6:.2f}",
            f"{work.fill / 1e6:.2f}" if work.fill else "",
            f"{work.bytes / 1e9:.1f}" if work.bytes else "",
            f"{work.steps:.0f}" if work.steps else "",
        ]
        for name, work in methods(stream).items()
    ]
    heads = [
        f"{stream.name}, a run",
        "million passes",
        "once a cache",
        "GB of cache read",
        "head steps",
    ]
    return markdown_table([heads, *rows])


def _machine_table(stream: Stream, found: Sequence[Machine]) -> str:
    rows = []
    for machine in found:
        went = study(stream, machine)
        workers = machine.workers * machine.memos
        rows.append(
            [
                machine.name,
                f"{went.seconds / _HOUR:.2f}",
                f"{went.held / _HOUR:.1f} {machine.unit}-hours",
                f"{went.held / (went.seconds * workers):.0%}",
                f"{max(0, 1 - went.work / went.held):.0%}",
            ]
        )
    heads = [f"{stream.name}, 60 runs", "hours", "workers taken", "busy", "waiting for the cache"]
    return markdown_table([heads, *rows])


def _scaling_table(stream: Stream, gpu: float) -> str:
    rows = []
    for count in (1, 2, 4, 8, 16, 32, 64):
        cells = [str(count)]
        for bandwidth in (0.2e9, 2e9, 20e9):
            one = Machine(name="", workers=1, passes=gpu, step=0.0005, bandwidth=bandwidth)
            many = replace(one, workers=count)
            cells.append(f"{study(stream, one).seconds / study(stream, many).seconds:.1f}")
        rows.append(cells)
    heads = [f"{stream.name}: GPUs at one cache", "of 0.2 GB/s", "of 2 GB/s", "of 20 GB/s"]
    return markdown_table([heads, *rows])


def measured_rates(folders: Sequence[Path]) -> list[list[str]]:
    """Returns what phases took, in milliseconds and in passes an image; the header first.

    Raises:
        InputError: If there is no finished run, or none of SimpleCIL to say what a pass takes.
    """
    spent: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for folder in find_runs(folders):
        record = RunRecord.read(folder)
        for event in read_events(folder) if record.state == "finished" else []:
            if isinstance(event, Phase | Evaluation):
                name = event.name if isinstance(event, Phase) else "evaluation"
                total = spent[record.strategy, name]
                total[0] += event.seconds
                total[1] += event.images
    seconds, images = spent.get(("simplecil", "evaluation"), (0.0, 0.0))
    if not images or not seconds:
        raise InputError("--rates must hold a finished run of simplecil: it says what a pass takes")
    rows = [["strategy", "phase", "images", "ms an image", "passes"]]
    for (strategy, phase), (taken, count) in sorted(spent.items()):
        each = taken / count if count else 0.0
        passes = each * images / seconds
        rows.append([strategy, phase, f"{count:.0f}", f"{1000 * each:.2f}", f"{passes:.2f}"])
    return rows


def main(
    gpu: Annotated[float, typer.Option(help="Passes a second of a GPU.", min=1)] = 2000.0,
    cores: Annotated[int, typer.Option(help="Cores of the CPU box.", min=1)] = 32,
    rates: Annotated[
        list[Path] | None, typer.Option(help="Run folders whose phases to measure instead.")
    ] = None,
) -> None:
    """Prints what a study costs, or what phases of runs took."""
    try:
        typer.echo(markdown_table(measured_rates(rates)) if rates else tables(gpu, cores), nl=False)
    except InputError as error:
        typer.echo(f"sizing: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
