"""Checks a recipe and opens everything that it names, before anything is written."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

import torch
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin

from cl_adapters.benchmarks.images import ImageSource, natural_key
from cl_adapters.benchmarks.plans import StreamPlan
from cl_adapters.benchmarks.recipe import RunConfig
from cl_adapters.benchmarks.scenarios import plan_stream, stream_name
from cl_adapters.benchmarks.sources import in_text_order, open_source
from cl_adapters.benchmarks.transforms import INPUT_RANGES, Preprocess, pipeline_settings
from cl_adapters.errors import InputError, unknown_name
from cl_adapters.pretrained import PretrainedViT, load_backbone
from cl_adapters.records import RunRecord
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.base import AdapterStrategy

__all__ = ["PreparedRun", "find_device", "open_backbone", "open_images", "prepare"]

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


def prepare(
    config: RunConfig, *, source: ImageSource | None = None, backbone: PretrainedViT | None = None
) -> PreparedRun:
    """Checks a recipe and opens everything that it names.

    Args:
        config: The recipe.
        source: An opened source to share between runs; None opens the recipe's.
        backbone: A loaded backbone to share between runs; None loads the recipe's.

    Raises:
        InputError: If anything in the recipe is unknown, missing or does not fit.
    """
    strategy_class = find_strategy(config.strategy)
    fidelity = strategy_class.config_class
    options = fidelity.official() if config.fidelity == "official" else fidelity()
    options = options.override(config.options)
    device = find_device(config.device)
    source = source or open_images(config)
    plan = plan_stream(source, config)
    backbone = backbone or open_backbone(config)
    preprocess = _preprocess(config, backbone)
    strategy = strategy_class(
        backbone=backbone.model,
        config=options,
        seed=config.seed,
        precision=config.precision,
        fixed_views=preprocess.augment == "none",
        device=device,
        # Without metrics: every number is computed from the predictions.
        evaluator=EvaluationPlugin(loggers=[BaseLogger()], collect_all=False),
    )
    record = RunRecord(
        strategy=config.strategy,
        stream=_safe_name(stream_name(source, config)),
        seed=config.seed,
        config=config.model_dump(mode="json"),
        fingerprint={
            "stream": source.name,
            "data": source.describe(),
            **plan.describe(),
            **_names(source, config),
            "backbone": backbone.name,
            "weights": backbone.digest,
            "pixels": preprocess.describe(),
        },
        classes=list(plan.classes),
        experiences=[list(each) for each in plan.experiences],
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
        host={
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count() or 1,
            "threads": config.threads or torch.get_num_threads(),
            "device": str(device),
        },
    )
    return PreparedRun(config, source, plan, backbone, preprocess, strategy, record)


def open_images(config: RunConfig) -> ImageSource:
    """Opens the images of a recipe; under a published protocol in the order its authors' code has.

    That code numbers the classes of a folder by their names as text, `10` before `2`, and so a
    published class order means something else where the names are bare numbers.
    """
    source = open_source(config.source)
    return in_text_order(source) if config.protocol else source


def open_backbone(config: RunConfig) -> PretrainedViT:
    """Loads the backbone of a recipe."""
    return load_backbone(config.backbone, weights=config.weights, image_size=config.image_size)


def find_device(name: str) -> torch.device:
    """Returns the torch device of a name; `auto` takes a GPU where there is one.

    Raises:
        InputError: If the device is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device must be one that torch can use here, got {name!r}: {reason}"
        ) from error
    return device


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


def _names(source: ImageSource, config: RunConfig) -> dict[str, str]:
    # The same rule of class order is another order where text and numbers sort differently.
    names = list(source.classes)
    is_text = names == sorted(names) != sorted(names, key=natural_key)
    return {"class_names": "in text order"} if config.protocol and is_text else {}


def _safe_name(name: str) -> str:
    kept = "".join(char if char.isalnum() or char in "-_." else "_" for char in name)
    return kept.strip(".") or "stream"
