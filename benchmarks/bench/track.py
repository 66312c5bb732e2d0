"""Runs strategies over noise and takes the time of each phase, and that of the bare network.

Time is processor time, which other programs on the machine hardly change; on a GPU it is real time.
Images are noise and the ViT is random: neither changes what is computed.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.sources import array_source
from cl_adapters.benchmarks.running.learner import Watched
from cl_adapters.benchmarks.running.memory import peak_bytes
from cl_adapters.benchmarks.running.observer import Observer
from cl_adapters.benchmarks.running.prepare import (
    PreparedRun,
    build_strategy,
    method_options,
    open_backbone,
    prepare,
)
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.peft.registry import build_adapters
from cl_adapters.strategies.core.paths import SLOTS
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.device import find_device
from cl_adapters.vit.pretrained import PretrainedViT

__all__ = ["BenchSettings", "Clock", "Timed", "Track", "Way"]

_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    # What makes runs of different lengths comparable; of SEMA its slots, which have a cache and
    # detectors of their own to be measured; everything else as users have it.
    "sema": {**SLOTS, "policy": "every_experience"},
}
# As the authors' code computes: the descriptors' images pass the network once an epoch.
_PLAIN: Final[dict[str, dict[str, Any]]] = {"sema": {"views": 0, "cache_megabytes": 0}}


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


@dataclass
class Timed:
    """What a strategy took over one stream.

    Attributes:
        phases: Seconds and images of each phase, by experience and name.
        steps: Training steps by phase.
        inside: Seconds of the steps' own computation by phase, without the loop around it.
        last_evaluation: Seconds, images and passes an image of the last evaluation.
        peak: Most bytes that were held.
        state: Bytes of what was learned, after each experience.
        predictions: Rows of the last evaluation.
    """

    phases: dict[tuple[int, str], tuple[float, int]] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    inside: dict[str, float] = field(default_factory=dict)
    last_evaluation: tuple[float, int, float] = (0.0, 0, 0.0)
    peak: int = 0
    state: list[int] = field(default_factory=list)
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def names(self) -> list[str]:
        """The phases, each once, in the order in which they came."""
        return list(dict.fromkeys(name for _, name in self.phases))

    def of(self, *names: str, first: int = 0, last: int | None = None) -> tuple[float, int]:
        """Returns seconds and images of some phases over the experiences from `first` on."""
        found = [
            taken
            for (experience, name), taken in self.phases.items()
            if name in names and first <= experience and (last is None or experience <= last)
        ]
        return sum(seconds for seconds, _ in found), sum(images for _, images in found)

    def per_image(self, *names: str, first: int = 0, last: int | None = None) -> float:
        """Returns the seconds that an image took in some phases."""
        seconds, images = self.of(*names, first=first, last=last)
        return seconds / images

    @property
    def total(self) -> float:
        """Seconds of all phases, evaluation included."""
        return self.of(*self.names)[0]


@dataclass(frozen=True)
class Way:
    """How a strategy is run.

    Attributes:
        cache: Where what is frozen is kept; None keeps nothing on disk.
        plain: Compute what is frozen at each use.
        options: Of the method.
        evaluate: After each experience, after the last, or after how many.
        kind: Class in place of the strategy's own.
    """

    cache: FeatureCache | None = None
    plain: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    evaluate: Literal["each", "last"] | frozenset[int] = "each"
    kind: type[AdapterStrategy] | None = None

    def evaluates(self, experience: int) -> bool:
        """Says whether an experience is followed by an evaluation, if it is not the last."""
        if isinstance(self.evaluate, frozenset):
            return experience + 1 in self.evaluate
        return self.evaluate == "each"


class Track:
    """Where strategies and the bare network run for time.

    Args:
        settings: What is measured.
    """

    def __init__(self, settings: BenchSettings) -> None:
        self.settings = settings
        self.device = find_device(settings.device)
        self._opened: PretrainedViT | None = None

    def time(self, name: str, length: int, way: Way) -> Timed:
        """Trains and evaluates a strategy over a stream of some experiences."""
        chosen = {**(_PLAIN.get(name, {}) if way.plain else {}), **way.options}
        config = self.config(name, chosen)
        prepared = prepare(
            config, source=self.source(length), backbone=self._backbone(), cache=way.cache
        )
        strategy = self._strategy(prepared, way)
        watch = _Watch(Clock(self.device))
        observer = Observer(prepared.plan, lambda *_: None)
        strategy.plugins[:0] = [watch, observer]
        watch.listen(strategy)
        benchmark = prepared.benchmark()
        torch.manual_seed(self.settings.seed)
        for experience in range(length):
            watch.experience = experience
            strategy.train(benchmark.train_stream[experience])
            if experience == length - 1 or way.evaluates(experience):
                passes = strategy.backbone.num_passes
                strategy.eval(benchmark.test_stream[: experience + 1])
                seconds, images = watch.evaluation
                asked = (strategy.backbone.num_passes - passes) / images
                watch.found.last_evaluation = (seconds, images, asked)
            learned = strategy.learned_state().values()
            watch.found.state.append(sum(value.nbytes for value in learned))
            if way.cache is not None:
                way.cache.flush()
        watch.found.predictions = observer.predictions(length - 1)
        watch.found.peak = peak_bytes(self.device)
        return watch.found

    def config(self, name: str, options: Mapping[str, Any] | None = None) -> RunConfig:
        """Returns the recipe of a strategy, with those of some options that it has."""
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

    def source(self, length: int) -> ImageSource:
        """Returns images of noise for a stream of some experiences."""
        generator = np.random.default_rng(self.settings.seed)
        side, classes = self.settings.image_size, length * self.settings.classes

        def noise(per_class: int) -> tuple[np.ndarray, np.ndarray]:
            targets = np.repeat(np.arange(classes), per_class)
            return generator.integers(0, 256, (len(targets), side, side, 3), np.uint8), targets

        return array_source("noise", noise(self.settings.train), noise(self.settings.test))

    def floor(self, batch: int, *, is_released: bool = False) -> float:
        """Returns seconds an image of one forward pass and one backward pass.

        Args:
            batch: Images of a step.
            is_released: Go back to all weights, as if they were trained, and not to the input.
        """
        network: nn.Module = AdaptedViT(self._backbone().model.vit).to(self.device)
        if is_released:  # a copy, as they must stay without gradients
            network = copy.deepcopy(network).requires_grad_()

        def step(images: Tensor) -> None:
            images.requires_grad = not is_released
            with self._autocast(self.settings.precision):
                network(images).float().sum().backward()

        return self._fastest(step, batch)

    def forward(self, batch: int, precision: str) -> float:
        """Returns seconds an image of one forward pass."""
        network = self._network()

        @torch.no_grad()
        def step(images: Tensor) -> None:
            with self._autocast(precision):
                network(images)

        return self._fastest(step, batch)

    def adapted_step(self, batch: int, *, is_compiled: bool) -> float:
        """Returns seconds an image of a training step of parallel adapters in all blocks."""
        network = AdaptedViT(self._backbone().model.vit, is_compiled=is_compiled).to(self.device)
        seeded = torch.Generator().manual_seed(0)
        blocks = range(network.num_blocks)
        pefts = build_adapters(
            "parallel", embed_dim=network.embed_dim, blocks=blocks, generator=seeded
        )
        pefts = pefts.to(self.device)

        def step(images: Tensor) -> None:
            with self._autocast(self.settings.precision):
                network(images, pefts).float().sum().backward()

        return self._fastest(step, batch)

    def _strategy(self, prepared: PreparedRun, way: Way) -> AdapterStrategy:
        if way.kind is not None:
            config, backbone = prepared.config, prepared.backbone
            return build_strategy(config, backbone, fixed_views=True, kind=way.kind)
        if way.plain:
            return build_strategy(prepared.config, prepared.backbone, fixed_views=False)
        return prepared.strategy

    def _backbone(self) -> PretrainedViT:
        if self._opened is None:
            self._opened = open_backbone(self.config("simplecil"))
        return self._opened

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
        clock, best = Clock(self.device), float("inf")
        for _ in range(turns):
            since = clock.now()
            step(images.clone())
            best = min(best, clock.now() - since)
        return best / batch


class Clock:
    """Processor time of this process; on a GPU real time, once its work is done."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    @property
    def is_cheap(self) -> bool:
        """Whether looking at it disturbs nothing."""
        return self._device.type != "cuda"

    def now(self) -> float:
        """Returns seconds since some moment."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return time.perf_counter()
        return time.process_time()


class _Watch(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
    """Adds up what phases and evaluations take."""

    # What a training step consists of, whatever loop is around it.
    _STEP: Final = ("forward", "criterion", "backward", "optimizer_step", "after_step")

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._since = 0.0
        self._images = 0
        self.experience = 0
        self.found = Timed()
        self.evaluation = (0.0, 0)

    def listen(self, strategy: AdapterStrategy) -> None:
        """Takes the time of a strategy's phases outside of epochs, and inside of its steps."""
        strategy.events.timed = self.timed  # type: ignore[method-assign] # in processor time
        for name in self._STEP:
            setattr(strategy, name, self._inside(strategy, getattr(strategy, name)))

    def _inside(self, strategy: AdapterStrategy, step: Callable[[], Any]) -> Callable[[], Any]:
        inside = self.found.inside

        def timed() -> object:
            since = self._clock.now()
            result = step()
            if strategy.is_training:
                taken = self._clock.now() - since
                inside[strategy.phase] = inside.get(strategy.phase, 0.0) + taken
            return result

        # A GPU would be waited for at each of them.
        return timed if self._clock.is_cheap else step

    @contextmanager
    def timed(self, name: str, images: int) -> Iterator[None]:
        since = self._clock.now()
        yield
        self._add(name, self._clock.now() - since, images)

    def before_training_epoch(self, strategy: Watched, **_: object) -> None:  # noqa: ARG002
        self._since, self._images = self._clock.now(), 0

    def after_training_iteration(self, strategy: Watched, **_: object) -> None:
        self._images += len(strategy.mb_y)
        steps = self.found.steps
        steps[strategy.phase] = steps.get(strategy.phase, 0) + 1

    def after_training_epoch(self, strategy: Watched, **_: object) -> None:
        self._add(strategy.phase, self._clock.now() - self._since, self._images)

    def before_eval(self, strategy: Watched, **_: object) -> None:  # noqa: ARG002
        self._since, self._images = self._clock.now(), 0

    def after_eval_iteration(self, strategy: Watched, **_: object) -> None:
        self._images += len(strategy.mb_y)

    def after_eval(self, strategy: Watched, **_: object) -> None:  # noqa: ARG002
        self.evaluation = (self._clock.now() - self._since, self._images)
        self._add("evaluation", *self.evaluation)

    def _add(self, name: str, seconds: float, images: int) -> None:
        key = self.experience, name
        before = self.found.phases.get(key, (0.0, 0))
        self.found.phases[key] = (before[0] + seconds, before[1] + images)
