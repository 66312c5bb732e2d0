"""Checks a recipe and opens everything that it names, before anything is written."""

import os
import platform
import warnings
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Final

import numpy as np
import torch
from avalanche.benchmarks.scenarios import CLScenario

from cl_adapters.benchmarks.data.features import ImageFeatureExtractor
from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.sources import SOURCE_NAMES
from cl_adapters.benchmarks.data.stores import Pixels
from cl_adapters.benchmarks.running.fingerprint import fingerprint_of_images
from cl_adapters.benchmarks.running.opening import open_images
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.scenarios import plan_segments, plan_stream, stream_name
from cl_adapters.benchmarks.streams.experiences import make_benchmark
from cl_adapters.benchmarks.streams.plans import StreamPlan
from cl_adapters.benchmarks.streams.watch import BoundaryDetector
from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.errors import EarlierNameWarning, InputError, unknown_name
from cl_adapters.images.transforms import INPUT_RANGES, Preprocess, pipeline_settings
from cl_adapters.peft.registry import PEFT_NAMES
from cl_adapters.peft.router_registry import ROUTER_NAMES
from cl_adapters.plugins.registry import Registry, label
from cl_adapters.records.files import digest
from cl_adapters.records.run_record import RunRecord
from cl_adapters.shift import DETECTOR_NAMES, find_detector
from cl_adapters.strategies import STRATEGY_NAMES, find_strategy, options_of
from cl_adapters.strategies.core.config import StrategyConfig
from cl_adapters.strategies.core.silent import silent
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.strategies.core.views import FixedViews, Views
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.device import find_device
from cl_adapters.vit.emoe import Experts
from cl_adapters.vit.pretrained import BACKBONE_NAMES, PretrainedViT, load_backbone

__all__ = [
    "PreparedRun",
    "build_strategy",
    "make_record",
    "method_options",
    "open_backbone",
    "prepare",
]

# Options of methods that name a piece, which may come from a package.
_PIECES: Final[dict[str, Registry[Any]]] = {
    "detector": DETECTOR_NAMES,
    "peft": PEFT_NAMES,
    "router": ROUTER_NAMES,
}
_PACKAGES: Final = (
    "cl-adapters",
    "torch",
    "torchvision",
    "timm",
    "avalanche-lib",
    "numpy",
    "pandas",
)


@dataclass(frozen=True)
class PreparedRun:
    """A recipe whose every part has been checked and opened; nothing is written yet."""

    config: RunConfig
    source: ImageSource
    plan: StreamPlan
    backbone: PretrainedViT
    preprocess: Preprocess
    strategy: AdapterStrategy
    record: RunRecord

    @property
    def threads(self) -> int | None:
        """CPU threads; None for torch's choice."""
        return self.config.threads

    def benchmark(self) -> CLScenario:
        """Returns Avalanche's train and test streams."""
        pixels = replace(self.preprocess, as_bytes=True)
        return make_benchmark(self.source, self.plan, pixels, self.strategy.augmentation.views)

    def test_pixels(self, experience: int, sample: int) -> Pixels:
        """Returns a test image as its experience has it, before any preprocessing."""
        place = int(np.flatnonzero(self.plan.samples(experience) == sample)[0])
        return self.plan.part(self.source.test, "test", experience).read(place)


def prepare(
    config: RunConfig,
    *,
    source: ImageSource | None = None,
    backbone: PretrainedViT | None = None,
    boundary_detector: BoundaryDetector | None = None,
    cache: FeatureCache | None = None,
    announcer: BoundaryDetector | None = None,
) -> PreparedRun:
    """Checks a recipe and opens everything that it names.

    Args:
        config: The recipe.
        source: An opened source to share between runs; None opens the recipe's.
        backbone: A loaded backbone to share between runs; None loads the recipe's.
        boundary_detector: What finds the boundaries of task-free runs, to share what it computes;
            None makes one.
        cache: Where the strategy keeps what frozen parts compute; None keeps nothing.
        announcer: Earlier name of `boundary_detector`.

    Raises:
        InputError: If anything in the recipe is unknown, missing or does not fit.
    """
    config = config.identified()
    _check_names(config)
    source = source or open_images(config)
    plan = plan_stream(source, config)
    loaded = backbone or open_backbone(config)
    preprocess = _preprocess(config, loaded)
    backbone = _of_this_run(config, loaded, preprocess)
    extractor = _feature_extractor(config, backbone, preprocess)
    detector = boundary_detector or _earlier(announcer) or BoundaryDetector()
    plan = plan_segments(source, plan, config, extractor, detector)
    views = _fixed_views(config, preprocess)
    # Of segments that were found, and of a run that goes on with another, nobody knows how many.
    is_known = config.task_free is None and not config.continued
    total = len(plan.experiences) if is_known else None
    strategy = build_strategy(config, backbone, fixed_views=views, cache=cache, total=total)
    fingerprint = {
        **fingerprint_of_images(source, config, plan),
        "backbone": backbone.name,
        "weights": backbone.digest,
        "pixels": {**preprocess.describe(), **_count(strategy.augmentation.views)},
    }
    record = make_record(config, plan, stream_name(source, config), fingerprint)
    record.data = source.reading.describe()
    return PreparedRun(config, source, plan, backbone, preprocess, strategy, record)


def _check_names(config: RunConfig) -> None:
    """Makes the cheap checks, before any image is opened."""
    method_options(config)
    find_device(config.device)
    if config.compile:
        _check_compiler(config)
    if config.emoe is not None:
        Experts.parse(config.emoe)
    if config.task_free is not None:
        find_detector(config.task_free)


def _of_this_run(
    config: RunConfig, backbone: PretrainedViT, preprocess: Preprocess
) -> PretrainedViT:
    """Returns a network of this run alone, over weights that runs may share."""
    own = AdaptedViT(
        backbone.model.vit,
        pixels=(preprocess.mean, preprocess.std),
        is_compiled=config.compile,
    )
    return replace(backbone, model=own)


def _feature_extractor(
    config: RunConfig, backbone: PretrainedViT, preprocess: Preprocess
) -> ImageFeatureExtractor:
    return ImageFeatureExtractor(
        backbone=backbone,
        preprocess=preprocess,
        device=find_device(config.device),
        precision=config.precision,
    )


def _earlier(announcer: BoundaryDetector | None) -> BoundaryDetector | None:
    if announcer is not None:
        warnings.warn(
            "`prepare(announcer=...)` is `prepare(boundary_detector=...)` now; the earlier name "
            "goes in the next version",
            EarlierNameWarning,
            stacklevel=3,
        )
    return announcer


def method_options(config: RunConfig) -> StrategyConfig:
    """Returns the options of a recipe's strategy, as `options_of` does."""
    return options_of(config.strategy, config.fidelity, config.options)


def build_strategy(
    config: RunConfig,
    backbone: PretrainedViT,
    *,
    fixed_views: bool | Views,
    cache: FeatureCache | None = None,
    kind: type[AdapterStrategy] | None = None,
    total: int | None = None,
) -> AdapterStrategy:
    """Returns the strategy of a recipe, as it begins.

    Args:
        config: The recipe.
        backbone: What it stands on.
        fixed_views: Whether the training images are the same in each epoch, or which view each of
            them shows.
        cache: Where it keeps what frozen parts compute; None keeps nothing.
        kind: Class in place of the strategy's own, with its options.
        total: Experiences of the stream, for methods that want to know and are not told by an
            option; None where nobody knows.
    """
    options = method_options(config)
    if total is not None and getattr(options, "experiences_total", total) is None:
        options = options.override({"experiences_total": total})
    return silent(
        kind or find_strategy(config.strategy),
        backbone=backbone.model,
        config=options,
        seed=config.seed,
        precision=config.precision,
        fixed_views=fixed_views,
        cache=cache,
        device=find_device(config.device),
    )


def make_record(
    config: RunConfig, plan: StreamPlan, stream: str, fingerprint: dict[str, object]
) -> RunRecord:
    """Returns the record of a run that has not begun.

    Args:
        config: The recipe.
        plan: What its stream holds.
        stream: What the stream is called.
        fingerprint: The protocol.
    """
    return RunRecord(
        strategy=label(config.strategy),
        stream=_safe_name(stream),
        seed=config.seed,
        config=config.model_dump(mode="json"),
        fingerprint=fingerprint,
        classes=list(plan.classes),
        experiences=[list(each) for each in plan.experiences],
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
            **_plugin_versions(config),
        },
        host={
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count() or 1,
            "threads": config.threads or torch.get_num_threads(),
            "device": str(find_device(config.device)),
        },
    )


def open_backbone(config: RunConfig) -> PretrainedViT:
    """Loads the backbone of a recipe."""
    return load_backbone(
        config.backbone,
        weights=config.weights,
        image_size=config.image_size,
        emoe=config.emoe,
    )


def _preprocess(config: RunConfig, backbone: PretrainedViT) -> Preprocess:
    if config.input_range not in INPUT_RANGES:
        raise unknown_name("input range", config.input_range, INPUT_RANGES)
    mean, std = INPUT_RANGES[config.input_range] or (backbone.mean, backbone.std)
    size = backbone.model.input_shape[1]
    plain = {"augment": config.augment, "scale": (config.crop_scale, 1.0)}
    return Preprocess(
        image_size=size,
        mean=mean,
        std=std,
        **(pipeline_settings(config.pipeline, size) or plain),
    )


def _check_compiler(config: RunConfig) -> None:
    try:
        torch.compile(_one_more)(torch.zeros(2, device=find_device(config.device)))
    except (RuntimeError, ImportError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            "recipe key `compile` must find a compiler that torch can use, a C++ one for the CPU, "
            f"got none: {reason}"
        ) from error


def _one_more(values: torch.Tensor) -> torch.Tensor:
    return values + 1


def _fixed_views(config: RunConfig, preprocess: Preprocess) -> bool | Views:
    pipeline = digest(preprocess.describe(), length=64)
    if config.fixed_views is None:
        return preprocess.augment == "none" or Views(pipeline)
    if preprocess.augment == "none":
        raise InputError(
            "recipe key `fixed_views` must go with an augmentation, got augment 'none', under "
            "which all views are one"
        )
    return FixedViews(config.fixed_views, pipeline)


def _count(views: Views | None) -> dict[str, int]:
    return {"fixed_views": views.count} if isinstance(views, FixedViews) else {}


def _plugin_versions(config: RunConfig) -> dict[str, str]:
    """Returns the versions of the installed packages that the recipe's names come from."""
    named: list[tuple[Registry[Any], str]] = [
        (STRATEGY_NAMES, config.strategy),
        *((SOURCE_NAMES, name) for name in config.sources),
        (BACKBONE_NAMES, config.backbone),
        *((DETECTOR_NAMES, name) for name in [config.task_free] if name is not None),
        *((_PIECES[key], value) for key, value in config.options.items() if key in _PIECES),
    ]
    return dict(filter(None, (names.version(name) for names, name in named)))


def _safe_name(name: str) -> str:
    kept = "".join(char if char.isalnum() or char in "-_." else "_" for char in name)
    return kept.strip(".") or "stream"
