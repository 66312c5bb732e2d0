"""Speed as ratios within one run: `cl-adapters bench`.

Everything is compared with a floor that is measured right beside it: one forward pass and one
backward pass to the input of the bare timm model, on the same batch. A method that trains adapters
in all blocks cannot be faster than that; what it takes beyond is ours. The fast way is also held
against the plain one, which computes what is frozen at every use, and both have to predict alike.

Time is processor time, which other programs on the machine hardly change; on a GPU it is real time.
Images are noise and the ViT is random: neither changes what is computed.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import torch
from avalanche.core import SupervisedPlugin
from rich.console import Console
from torch import Tensor, nn

from cl_adapters.benchmarks.images import ImageSource
from cl_adapters.benchmarks.observer import Observer
from cl_adapters.benchmarks.prepare import (
    PreparedRun,
    build_strategy,
    find_device,
    method_options,
    open_backbone,
    prepare,
)
from cl_adapters.benchmarks.recipe import RunConfig
from cl_adapters.benchmarks.runner import peak_bytes
from cl_adapters.benchmarks.sources import array_source
from cl_adapters.errors import InputError, RunError
from cl_adapters.memo import Memo
from cl_adapters.pretrained import PretrainedViT
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.base import AdapterStrategy
from cl_adapters.strategies.mos import MOS

__all__ = [
    "Bench",
    "BenchResult",
    "BenchSettings",
    "Metric",
    "compare",
    "read_metrics",
    "run_bench",
]

TOLERANCE: Final = 0.15  # share of a stored ratio that may be lost
_LENGTHS: Final = (5, 10, 20)
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    # What makes runs of different lengths comparable; everything else as users have it.
    "sema": {"policy": "every_experience"},
}
# As the authors' code computes: the descriptors' images pass the network once an epoch.
_PLAIN: Final[dict[str, dict[str, Any]]] = {"sema": {"views": 0, "memo_megabytes": 0}}


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What is measured.

    Attributes:
        backbone: timm architecture, with random weights.
        image_size: Side of the input in pixels.
        classes: Classes an experience.
        train: Training images a class.
        test: Test images a class.
        precision: Of forward passes.
        device: torch device.
        seed: Of images, weights and orders.
    """

    backbone: str = "vit_tiny_patch16_224"
    image_size: int = 96
    classes: int = 2
    train: int = 48
    test: int = 16
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "cpu"
    seed: int = 0


@dataclass(frozen=True)
class Metric:
    """A number without a unit, for one machine against itself.

    Attributes:
        name: What it is.
        value: The ratio, or the number in the unit that the name ends with.
        target: What is asked for.
        better: Whether more or less is better.
        is_ratio: Whether it means the same on another machine.
    """

    name: str
    value: float
    target: float
    better: Literal["more", "less"]
    is_ratio: bool = True

    @property
    def is_reached(self) -> bool:
        """Whether the value is at least as good as the target."""
        return self.value >= self.target if self.better == "more" else self.value <= self.target


@dataclass
class Timed:
    """What a strategy took over one stream: seconds and images of each phase."""

    phases: dict[str, tuple[float, int]] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    last_evaluation: tuple[float, int, float] = (0.0, 0, 0.0)  # seconds, images, passes
    peak: int = 0
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)

    def per_image(self, phase: str) -> float:
        """Returns the seconds that an image took in a phase."""
        seconds, images = self.phases[phase]
        return seconds / images

    @property
    def total(self) -> float:
        """Seconds of all phases, evaluation included."""
        return sum(seconds for seconds, _ in self.phases.values())


@dataclass(frozen=True)
class _Way:
    """How a strategy is run: with a memo or plainly; evaluated after each experience or the last.

    The first `skip` experiences are not counted. `kind` replaces the strategy's class.
    """

    memo: Memo | None = None
    plain: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    evaluate: Literal["each", "last"] = "each"
    skip: int = 0
    kind: type[AdapterStrategy] | None = None


class Bench:
    """Runs strategies over noise and compares.

    Args:
        settings: What is measured.
        say: Told what is being measured.
    """

    def __init__(
        self, settings: BenchSettings, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.settings = settings
        self.device = find_device(settings.device)
        self._say = say
        self._opened: PretrainedViT | None = None
        self.rows: list[dict[str, Any]] = []
        self.metrics: list[Metric] = []

    # --- what is compared ----------------------------------------------------------------------

    def run(self, strategies: Sequence[str], lengths: Sequence[int] = _LENGTHS) -> None:
        """Measures everything that concerns some strategies; fills `rows` and `metrics`.

        Raises:
            RunError: If the fast way predicts anything else than the plain one.
        """
        for name in strategies:
            for length in lengths:
                self._say(f"{name}, {length} experiences")
                self._measure_steps(name, length)
            if name in _COMPARED:
                self._say(f"{name}, fast against plain")
                _COMPARED[name](self)
        self._say("precision, start of the command")
        self._add("bf16 over fp32, forward", self._gain_of_bf16(), 1.6, "more")
        self._add("cl-adapters --help, s", _seconds_of_help(), 0.5, "less", is_ratio=False)

    def _measure_steps(self, name: str, length: int) -> None:
        options = {} if length == min(_LENGTHS) else {"epochs": 1}
        with tempfile.TemporaryDirectory() as folder:
            found = self._time(name, length, _Way(Memo(Path(folder)), options=options))
            batch = method_options(self._config(name)).batch_size
            floor = self._floor(batch)
        for phase, (seconds, images) in found.phases.items():
            self.rows.append(
                {
                    "strategy": name,
                    "experiences": length,
                    "phase": phase,
                    "images/s": images / seconds if seconds else 0.0,
                    "floors": seconds / images / floor if images else 0.0,
                    "passes/image": found.last_evaluation[2] if phase == "evaluation" else None,
                    "peak MB": found.peak / 2**20,
                }
            )
        trained = [each for each in ("train", "functional") if each in found.phases]
        if length == min(_LENGTHS) and trained:
            value = found.per_image(trained[0]) / floor
            self._add(f"training step of {name}, floors", value, 1.25, "less")

    def _compare_simplecil(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            first, second = (
                self._time("simplecil", 20, _Way(Memo(Path(folder)))) for _ in range(2)
            )
        plain = self._time("simplecil", 20, _Way())
        _agree("simplecil", first, plain)
        _agree("simplecil", second, plain)
        config = self._config("simplecil")
        images = len(self._source(20).train) + len(self._source(20).test)
        one_pass = images * self._forward(
            method_options(config).batch_size, self.settings.precision
        )
        self._add(
            "whole run of simplecil, passes over all images", first.total / one_pass, 1.1, "less"
        )
        self._add(
            "second run of simplecil, first over second", first.total / second.total, 20, "more"
        )

    def _compare_sema(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fast = self._time("sema", 5, _Way(Memo(Path(folder)), skip=1))
        plain = self._time("sema", 5, _Way(plain=True, skip=1))
        _agree("sema", fast, plain)
        training = [
            sum(seconds for phase, (seconds, _) in each.phases.items() if phase != "evaluation")
            for each in (plain, fast)
        ]
        self._add(
            "training of sema from experience 1 on, plain over fast",
            training[0] / training[1],
            4,
            "more",
        )
        describing = plain.phases["descriptor"][0] / fast.phases["descriptor"][0]
        self._add("descriptor phase of sema, plain over fast", describing, 30, "more")

    def _compare_lae(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fast = self._time("lae", 5, _Way(Memo(Path(folder))))
        plain = self._time("lae", 5, _Way(plain=True))
        _agree("lae", fast, plain)
        spent = fast.phases["freeze"][0] + fast.phases["frozen"][0]
        freeze = plain.phases["freeze"][0] / spent
        self._add("freeze epochs of lae, plain over fast", freeze, 10, "more")
        seconds, steps = fast.phases["freeze"][0], fast.steps["freeze"]
        self._add(
            "step of lae on features, ms", 1000 * seconds / steps, 0.6, "less", is_ratio=False
        )

    def _compare_mos(self) -> None:
        options = {"epochs": 1}
        found = {
            length: self._time("mos", length, _Way(options=options, evaluate="last"))
            for length in (5, 20)
        }
        way = _Way(options=options, evaluate="last", kind=_ExhaustiveMOS)
        exhaustive = self._time("mos", 20, way)
        _agree("mos", found[20], exhaustive)
        each = {length: seen.per_image("evaluation") for length, seen in found.items()}
        gain = exhaustive.per_image("evaluation") / each[20]
        self._add("evaluation of mos at 20 experiences, exhaustive over lazy", gain, 7, "more")
        self._add("evaluation of mos, 20 over 5 experiences", each[20] / each[5], 1.3, "less")
        self._add("passes of mos at 20 experiences", found[20].last_evaluation[2], 2.5, "less")

    # --- how it is measured --------------------------------------------------------------------

    def _time(self, name: str, length: int, way: _Way) -> Timed:
        """Trains and evaluates over a stream."""
        chosen = {**(_PLAIN.get(name, {}) if way.plain else {}), **way.options}
        config = self._config(name, chosen)
        prepared = prepare(
            config, source=self._source(length), backbone=self._backbone(), memo=way.memo
        )
        strategy = self._strategy(prepared, way)
        clock = _Clock(self.device)
        watch = _Watch(clock)
        observer = Observer(prepared.plan, lambda *_: None)
        strategy.plugins[:0] = [watch, observer]
        strategy.timed = watch.timed  # type: ignore[method-assign] # in processor time
        benchmark = prepared.benchmark()
        torch.manual_seed(self.settings.seed)
        for experience in range(length):
            if experience == way.skip:
                watch.found.phases.clear()
                watch.found.steps.clear()
            strategy.train(benchmark.train_stream[experience])
            if way.evaluate == "each" or experience == length - 1:
                passes = strategy.backbone.num_passes
                strategy.eval(benchmark.test_stream[: experience + 1])
                seconds, images = watch.evaluation
                asked = (strategy.backbone.num_passes - passes) / images
                watch.found.last_evaluation = (seconds, images, asked)
            if way.memo is not None:
                way.memo.flush()
        watch.found.predictions = observer.predictions(length - 1)
        watch.found.peak = peak_bytes(self.device)
        return watch.found

    def _strategy(self, prepared: PreparedRun, way: _Way) -> AdapterStrategy:
        if way.kind is not None:
            return way.kind(
                backbone=prepared.backbone.model,
                config=method_options(prepared.config),
                seed=prepared.config.seed,
                precision=prepared.config.precision,
                device=self.device,
                fixed_views=True,
            )
        if way.plain:
            return build_strategy(prepared.config, prepared.backbone, fixed_views=False)
        return prepared.strategy

    def _config(self, name: str, options: Mapping[str, Any] | None = None) -> RunConfig:
        settings = self.settings
        known = RunConfig.parse({"strategy": name})
        fields = set(type(method_options(known)).model_fields)
        wanted = {**_OPTIONS.get(name, {}), **(options or {})}
        if wanted.get("epochs") == 1 and name == "lae":
            wanted["freeze_epochs"] = 0
        return RunConfig.parse(
            {
                "strategy": name,
                "increment": settings.classes,
                "class_order": "natural",
                "backbone": settings.backbone,
                "weights": "random",
                "image_size": settings.image_size,
                "precision": settings.precision,
                "device": settings.device,
                "seed": settings.seed,
                "options": {key: value for key, value in wanted.items() if key in fields},
            }
        )

    def _source(self, length: int) -> ImageSource:
        generator = np.random.default_rng(self.settings.seed)
        side, classes = self.settings.image_size, length * self.settings.classes

        def noise(per_class: int) -> tuple[np.ndarray, np.ndarray]:
            targets = np.repeat(np.arange(classes), per_class)
            return generator.integers(0, 256, (len(targets), side, side, 3), np.uint8), targets

        return array_source("noise", noise(self.settings.train), noise(self.settings.test))

    def _backbone(self) -> PretrainedViT:
        if self._opened is None:
            self._opened = open_backbone(self._config("simplecil"))
        return self._opened

    def _floor(self, batch: int) -> float:
        """Returns seconds an image of one forward pass and one backward pass to the input."""
        network = self._network()

        def step(images: Tensor) -> None:
            images.requires_grad_()
            with self._autocast(self.settings.precision):
                network(images).float().sum().backward()

        return self._fastest(step, batch)

    def _forward(self, batch: int, precision: str) -> float:
        """Returns seconds an image of one forward pass."""
        network = self._network()

        @torch.no_grad()
        def step(images: Tensor) -> None:
            with self._autocast(precision):
                network(images)

        return self._fastest(step, batch)

    def _gain_of_bf16(self) -> float:
        return self._forward(64, "fp32") / self._forward(64, "bf16")

    def _network(self) -> nn.Module:
        network: nn.Module = self._backbone().model.vit
        return network.to(self.device)

    @contextmanager
    def _autocast(self, precision: str) -> Iterator[None]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield

    def _fastest(self, step: Callable[[Tensor], None], batch: int, turns: int = 7) -> float:
        side = self.settings.image_size
        images = torch.rand(batch, 3, side, side, device=self.device)
        clock, best = _Clock(self.device), float("inf")
        for _ in range(turns):
            since = clock.now()
            step(images.clone())
            best = min(best, clock.now() - since)
        return best / batch

    def _add(
        self,
        name: str,
        value: float,
        target: float,
        better: Literal["more", "less"],
        *,
        is_ratio: bool = True,
    ) -> None:
        self.metrics.append(Metric(name, value, target, better, is_ratio))

    # --- what comes out ------------------------------------------------------------------------

    def table(self) -> list[list[str]]:
        """Returns a row a strategy, length and phase, the header first."""
        header = [
            "strategy",
            "experiences",
            "phase",
            "images/s",
            "floors",
            "passes/image",
            "peak MB",
        ]
        rows = [[_text(row[name]) for name in header] for row in self.rows]
        return [header, *rows]

    def metric_table(self) -> list[list[str]]:
        """Returns a row a metric, the header first."""
        rows = [
            [
                each.name,
                f"{each.value:.2f}",
                f"{'≥' if each.better == 'more' else '≤'} {each.target:g}",
                "yes" if each.is_reached else "no",
            ]
            for each in self.metrics
        ]
        return [["measure", "value", "target", "reached"], *rows]

    def write(self, path: Path) -> None:
        """Writes everything as JSON."""
        found = {
            "settings": asdict(self.settings),
            "machine": {
                "device": _device_name(self.device),
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "cpu": torch.backends.cpu.get_cpu_capability(),
            },
            "metrics": [asdict(each) for each in self.metrics],
            "rows": self.rows,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


_COMPARED: Final[dict[str, Callable[[Bench], None]]] = {
    "simplecil": Bench._compare_simplecil,  # noqa: SLF001
    "sema": Bench._compare_sema,  # noqa: SLF001
    "lae": Bench._compare_lae,  # noqa: SLF001
    "mos": Bench._compare_mos,  # noqa: SLF001
}


class _ExhaustiveMOS(MOS):
    """Asks all stored sets about every image, as the authors' code does."""

    def forward(self) -> Tensor:
        if self.is_training:
            return super().forward()
        images: Tensor = self.mb_x
        with self.autocast():
            seen = torch.stack(
                [
                    self._see(images, torch.full((len(images),), each, device=images.device))
                    for each in range(len(self.model.stored))
                ]
            )
            places = torch.arange(len(images), device=images.device)
            return self.model.answer(places, lambda rows, sets: seen[sets, rows])


class _Clock:
    """Processor time of this process; on a GPU real time, once its work is done."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return time.perf_counter()
        return time.process_time()


class _Watch(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
    """Adds up what phases and evaluations take."""

    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        self._clock = clock
        self._since = 0.0
        self._images = 0
        self.found = Timed()
        self.evaluation = (0.0, 0)

    @contextmanager
    def timed(self, name: str, images: int) -> Iterator[None]:
        since = self._clock.now()
        yield
        self._add(name, self._clock.now() - since, images)

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        self._since, self._images = self._clock.now(), 0

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401
        self._images += len(strategy.mb_y)
        steps = self.found.steps
        steps[strategy.phase] = steps.get(strategy.phase, 0) + 1

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401
        self._add(strategy.phase, self._clock.now() - self._since, self._images)

    def before_eval(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        self._since, self._images = self._clock.now(), 0

    def after_eval_iteration(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401
        self._images += len(strategy.mb_y)

    def after_eval(self, strategy: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        self.evaluation = (self._clock.now() - self._since, self._images)
        self._add("evaluation", *self.evaluation)

    def _add(self, name: str, seconds: float, images: int) -> None:
        before = self.found.phases.get(name, (0.0, 0))
        self.found.phases[name] = (before[0] + seconds, before[1] + images)


def _agree(name: str, fast: Timed, plain: Timed) -> None:
    share = float((fast.predictions["prediction"] != plain.predictions["prediction"]).mean())
    if share > 0.005:
        raise RunError(
            f"fast and plain {name} must predict alike within 0.5 %, {100 * share:.1f} % differ"
        )


def _seconds_of_help() -> float:
    command = [sys.executable, "-m", "cl_adapters", "--help"]
    best = float("inf")
    for _ in range(3):
        since = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        best = min(best, time.perf_counter() - since)
    return best


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def read_metrics(path: Path) -> list[Metric]:
    """Returns the metrics that `Bench.write` wrote.

    Raises:
        InputError: If the file holds none.
    """
    try:
        return [Metric(**each) for each in json.loads(path.read_text("utf-8"))["metrics"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(path)!r} must hold what `bench` wrote, got: {error}") from error


def compare(now: Sequence[Metric], stored: Sequence[Metric]) -> list[str]:
    """Returns a sentence for each ratio that is worse than the stored one by more than 15 %.

    Only ratios are compared: times mean nothing on another machine.

    Example:
        >>> old, new = (Metric("gain", value, 7.0, "more") for value in (8.0, 6.0))
        >>> compare([new], [old])
        ['gain was 8.00 and is 6.00, a loss of 25 %']
    """
    before = {each.name: each for each in stored if each.is_ratio}
    found = []
    for each in now:
        old = before.get(each.name)
        if old is None or not each.is_ratio:
            continue
        kept = each.value / old.value if each.better == "more" else old.value / each.value
        if kept < 1 - TOLERANCE:
            found.append(
                f"{each.name} was {old.value:.2f} and is {each.value:.2f}, "
                f"a loss of {100 * (1 - kept):.0f} %"
            )
    return found


@dataclass(frozen=True)
class BenchResult:
    """What `run_bench` found.

    Attributes:
        tables: Rows of text for printing, headers first.
        losses: A sentence for each ratio that fell behind the stored one.
    """

    tables: list[list[list[str]]]
    losses: list[str]


def run_bench(
    strategies: Sequence[str],
    settings: Mapping[str, Any],
    threads: int,
    out: Path,
    against: Path | None,
) -> BenchResult:
    """Does what `cl-adapters bench` does.

    Args:
        strategies: Names of strategies.
        settings: Fields of `BenchSettings`.
        threads: CPU threads.
        out: JSON file to write.
        against: JSON file of an earlier run to compare with; None compares with nothing.

    Raises:
        InputError: If a name is unknown or the earlier file holds no metrics.
    """
    for name in strategies:
        find_strategy(name)
    stored = None if against is None else read_metrics(against)
    console = Console(stderr=True)
    torch.set_num_threads(threads)
    bench = Bench(BenchSettings(**settings), lambda text: console.print(text, highlight=False))
    bench.run(strategies)
    bench.write(out)
    losses = compare(bench.metrics, stored) if stored is not None else []
    return BenchResult([bench.table(), bench.metric_table()], losses)
