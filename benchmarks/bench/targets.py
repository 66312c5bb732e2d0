"""What `cl-adapters bench` compares, and the targets of each comparison.

Everything is compared with a floor that is measured right beside it: one forward pass and one
backward pass to the input of the bare timm model, on the same batch. A method that trains adapters
in all blocks cannot be faster than that; what it takes beyond is ours. Where a method trains a copy
of all weights, the backward pass goes to these, which is another half. The fast way is also held
against the plain one, which computes what is frozen at every use, and both have to predict alike.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from rich.console import Console
from torch import Tensor

from cl_adapters.benchmarks.bench.memory import peak_of_a_run
from cl_adapters.benchmarks.bench.metrics import (
    Metric,
    best_of,
    compare,
    metric_table,
    read_metrics,
)
from cl_adapters.benchmarks.bench.track import BenchSettings, Timed, Track, Way
from cl_adapters.benchmarks.running.prepare import method_options
from cl_adapters.benchmarks.running.progress import say
from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.errors import InputError, RunError
from cl_adapters.paths import read_text
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.mos import MOS

__all__ = ["Bench", "BenchResult", "run_bench"]

_LENGTHS: Final = (5, 10, 20)
_TRAINED: Final = ("train", "functional", "first session")
_HEADER: Final = (
    "strategy", "experiences", "phase", "images/s", "floors", "passes/image", "peak MB",
)  # fmt: skip


class Bench:
    """Runs strategies over noise and compares.

    Args:
        settings: What is measured.
        say: Told what is being measured.

    Attributes:
        rows: A strategy, length and phase each, with what it took.
        metrics: Numbers with targets.
    """

    def __init__(
        self, settings: BenchSettings, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.settings = settings
        self._track = Track(settings)
        self._say = say
        self.rows: list[dict[str, Any]] = []
        self.metrics: list[Metric] = []

    # --- what is compared ----------------------------------------------------------------------

    def run(
        self,
        strategies: Sequence[str],
        lengths: Sequence[int] = _LENGTHS,
        *,
        machine: bool = True,
    ) -> None:
        """Measures everything that concerns some strategies; fills `rows` and `metrics`.

        Args:
            strategies: Their names.
            lengths: Experiences of the streams that phases are measured over.
            machine: Also measure what is no strategy's: precision, compiler, memory, the command.

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
        if machine:
            self._measure_machine(strategies)

    def repeat(self, strategies: Sequence[str], times: int) -> None:
        """Measures the ratios of some strategies several times and keeps the best of each."""
        runs = [self.metrics] if self.metrics else []
        for _ in range(times):
            self.metrics, self.rows = [], []
            self.run(strategies, lengths=_LENGTHS[:1], machine=False)
            runs.append(self.metrics)
        self.metrics = best_of(runs)

    def _measure_steps(self, name: str, length: int) -> None:
        options = {} if length == min(_LENGTHS) else {"epochs": 1}
        is_released = "backbone" in find_strategy(name).pieces
        with tempfile.TemporaryDirectory() as folder:
            batch = method_options(self._track.config(name)).batch_size
            # Before and after: a machine that slows down in between moves both.
            before = self._track.floor(batch, is_released=is_released)
            found = self._track.time(name, length, Way(FeatureCache(Path(folder)), options=options))
            floor = (before + self._track.floor(batch, is_released=is_released)) / 2
        for phase in found.names:
            seconds, images = found.of(phase)
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
        trained = [each for each in _TRAINED if each in found.names]
        if length == min(_LENGTHS) and trained and find_strategy(name).learns_by_gradient:
            # The first experience of SEMA trains all blocks, the later ones of MOS merge.
            taken = found.of(trained[0], last=0), found.of(trained[0], first=1)
            worst = max(seconds / images for seconds, images in taken if images)
            self._add(f"training step of {name}, floors", worst / floor, 1.25, "less")

    def _compare_simplecil(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            first, second = (
                self._track.time("simplecil", 20, Way(FeatureCache(Path(folder)))) for _ in range(2)
            )
        plain = self._track.time("simplecil", 20, Way())
        _agree("simplecil", first, plain)
        _agree("simplecil", second, plain)
        batch = method_options(self._track.config("simplecil")).batch_size
        source = self._track.source(20)
        images = len(source.train) + len(source.test)
        one_pass = images * self._track.forward(batch, self.settings.precision)
        self._add(
            "whole run of simplecil, passes over all images", first.total / one_pass, 1.1, "less"
        )
        self._add(
            "second run of simplecil, first over second", first.total / second.total, 20, "more"
        )

    def _compare_sema(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fast = self._track.time("sema", 5, Way(FeatureCache(Path(folder))))
        plain = self._track.time("sema", 5, Way(plain=True))
        _agree("sema", fast, plain)
        training = [
            each.of(*(name for name in each.names if name != "evaluation"), first=1)[0]
            for each in (plain, fast)
        ]
        self._add(
            "training of sema from experience 1 on, plain over fast",
            training[0] / training[1],
            4,
            "more",
        )
        describing = [each.of("descriptor", first=1)[0] for each in (plain, fast)]
        self._add(
            "descriptor phase of sema, plain over fast", describing[0] / describing[1], 30, "more"
        )

    def _compare_lae(self) -> None:
        found = {}
        for epochs in (3, 10):
            options = {"epochs": epochs + 1, "freeze_epochs": epochs}
            fast = self._track.time("lae", 3, Way(options=options))
            plain = self._track.time("lae", 3, Way(plain=True, options=options))
            _agree("lae", fast, plain)
            found[epochs] = plain.of("freeze")[0] / fast.of("freeze", "frozen")[0]
        for epochs, gain in found.items():
            # The features change with each experience, so they are computed once in each: one pass
            # in place of as many as there are epochs.
            name = f"{epochs} freeze epochs of lae, plain over fast"
            self._add(name, gain, 10, "more", bound=epochs)
        self._measure_loop()

    def _measure_loop(self) -> None:
        options = {"epochs": 11, "freeze_epochs": 10, "batch_size": 64}
        found = self._track.time("lae", 3, Way(options=options, evaluate="last"))
        seconds, steps = found.of("freeze")[0], found.steps["freeze"]
        inside = found.inside.get("freeze", 0.0)
        self._add(
            "loop around a step on features, ms",
            1000 * (seconds - inside) / steps,
            0.6,
            "less",
            is_ratio=False,
        )

    def _compare_mos(self) -> None:
        options = {"epochs": 1}
        found = {
            length: self._track.time("mos", length, Way(options=options, evaluate="last"))
            for length in (5, 20)
        }
        way = Way(options=options, evaluate="last", kind=_ExhaustiveMOS)
        exhaustive = self._track.time("mos", 20, way)
        _agree("mos", found[20], exhaustive)
        each = {length: seen.per_image("evaluation") for length, seen in found.items()}
        gain = exhaustive.per_image("evaluation") / each[20]
        self._add("evaluation of mos at 20 experiences, exhaustive over lazy", gain, 7, "more")
        self._add("evaluation of mos, 20 over 5 experiences", each[20] / each[5], 1.3, "less")
        self._add("passes of mos at 20 experiences", found[20].last_evaluation[2], 2.5, "less")

    def _compare_ease(self) -> None:
        each = {}
        for length in (5, 10):
            with tempfile.TemporaryDirectory() as folder:
                way = Way(FeatureCache(Path(folder)), options={"epochs": 1})
                seconds, images, _ = self._track.time("ease", length, way).last_evaluation
                each[length] = seconds / images
        self._add("evaluation of ease, 10 over 5 experiences", each[10] / each[5], 2.0, "less")

    def _measure_machine(self, strategies: Sequence[str]) -> None:
        self._say("precision, compiler, start of the command")
        gain = self._track.forward(64, "fp32") / self._track.forward(64, "bf16")
        self._add("bf16 over fp32, forward", gain, 1.6, "more")
        try:
            plain, compiled = (
                self._track.adapted_step(32, is_compiled=each) for each in (False, True)
            )
            self._add("torch.compile over none, step of adapters", plain / compiled, 1.0, "more")
        except RuntimeError as error:
            self._say(f"no compiler: {str(error).splitlines()[0]}")
        self._add("cl-adapters --help, s", _seconds_of_help(), 0.5, "less", is_ratio=False)
        for name in strategies if self._track.device.type == "cpu" else ():
            self._say(f"memory of {name}")
            settings = self.settings
            peak = peak_of_a_run(name, settings.backbone, settings.image_size, settings.precision)
            self._add(f"peak memory of {name}, MB", peak / 2**20, 2048, "less", is_ratio=False)

    def _add(
        self,
        name: str,
        value: float,
        target: float,
        better: Literal["more", "less"],
        **about: Any,  # noqa: ANN401 - further fields of `Metric`
    ) -> None:
        self.metrics.append(Metric(name, value, target, better, **about))

    # --- what comes out ------------------------------------------------------------------------

    def table(self) -> list[list[str]]:
        """Returns a row a strategy, length and phase, the header first."""
        return [list(_HEADER), *([_text(row[name]) for name in _HEADER] for row in self.rows)]

    def write(self, path: Path) -> None:
        """Writes everything as JSON."""
        device = self._track.device
        is_gpu = device.type == "cuda"
        found = {
            "settings": asdict(self.settings),
            "machine": {
                "device": torch.cuda.get_device_name(device) if is_gpu else "cpu",
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
    "ease": Bench._compare_ease,  # noqa: SLF001
}


class _ExhaustiveMOS(MOS):
    """Asks all stored sets about every image, as the authors' code does."""

    def forward(self) -> Tensor:
        if self.is_training:
            return super().forward()
        images: Tensor = self.mb_x
        with self.features.autocast():
            frozen = self.model.frozen_adapters
            asked = [torch.full_like(self.mb_y, each) for each in range(len(frozen))]
            seen = torch.stack([self.backbone(images, frozen.choose(each)) for each in asked])
            places = torch.arange(len(images), device=images.device)
            self.output = self.model.answer(places, lambda rows, sets: seen[sets, rows])
            return self.output.logits


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


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


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
    against: Path | None = None,
    *,
    only_ratios: bool = False,
) -> BenchResult:
    """Does what `cl-adapters bench` does.

    Against an earlier file only ratios are measured; twice more if one seems lost.

    Args:
        strategies: Names of strategies.
        settings: Fields of `BenchSettings`.
        threads: CPU threads.
        out: JSON file to write.
        against: JSON file of an earlier run to compare with; None compares with nothing.
        only_ratios: Measure what is compared, and that twice, keeping the better of each.

    Raises:
        InputError: If a name is unknown, or the earlier file holds no metrics, or those of another
            network.
    """
    if not strategies:
        raise InputError("--strategy must name at least one strategy, got none")
    for name in strategies:
        find_strategy(name)
    stored = None if against is None else read_metrics(against)
    console = Console(stderr=True)
    torch.set_num_threads(threads)
    bench = Bench(BenchSettings(**settings), lambda text: say(console, text))
    losses: list[str] = []
    if against is not None:
        _refuse_other(against, bench.settings)
    if against is None and not only_ratios:
        bench.run(strategies)
    else:
        bench.repeat(strategies, 2)
    if stored is not None:
        losses = compare(bench.metrics, stored)
    if losses and stored is not None:  # a busy machine, perhaps
        bench.repeat(strategies, 2)
        losses = compare(bench.metrics, stored)
    bench.write(out)
    return BenchResult([bench.table(), metric_table(bench.metrics)], losses)


def _refuse_other(against: Path, settings: BenchSettings) -> None:
    stored = json.loads(read_text(against)).get("settings", {})
    for name in ("backbone", "image_size", "train", "precision", "device"):
        if stored.get(name) != getattr(settings, name):
            raise InputError(
                f"{str(against)!r} must hold ratios of the same {name}, "
                f"{getattr(settings, name)!r}, got {stored.get(name)!r}"
            )
