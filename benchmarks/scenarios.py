"""From the keys of a recipe to the plan of a stream."""

from collections.abc import Callable, Mapping
from typing import Final

from cl_adapters.benchmarks.blurry import blurry_plan
from cl_adapters.benchmarks.domains import class_domain_plan, domain_plan
from cl_adapters.benchmarks.images import ImageSource
from cl_adapters.benchmarks.long_tailed import long_tailed_plan
from cl_adapters.benchmarks.plans import StreamPlan
from cl_adapters.benchmarks.recipe import RunConfig
from cl_adapters.benchmarks.repetition import repetition_plan
from cl_adapters.benchmarks.shifts import Schedule, shift_plan
from cl_adapters.benchmarks.streams import make_plan, split_classes

__all__ = ["plan_stream", "stream_name"]


def plan_stream(source: ImageSource, config: RunConfig) -> StreamPlan:
    """Returns the plan of a recipe's stream.

    Raises:
        InputError: If the recipe does not fit the source.
    """
    return _PLANNERS[config.scenario](source, config)


def stream_name(source: ImageSource, config: RunConfig) -> str:
    """Returns the name of a recipe's stream: its source, then the scenario unless it is `class`."""
    return source.name if config.scenario == "class" else f"{source.name}-{config.scenario}"


def _class(source: ImageSource, config: RunConfig) -> StreamPlan:
    return make_plan(
        source,
        increment=config.increment,
        first=config.first,
        order=config.class_order,
        seed=config.seed,
    )


def _domain(source: ImageSource, config: RunConfig) -> StreamPlan:
    return domain_plan(
        source, order=config.domain_order, classes=config.class_order, seed=config.seed
    )


def _shift(source: ImageSource, config: RunConfig) -> StreamPlan:
    schedule = Schedule(
        num_experiences=config.num_experiences,
        changes=config.changes,
        recurring=config.recurring,
        shifts=[kind.strip() for kind in config.shifts.split(",") if kind.strip()],
        transition=config.transition,
        severity=config.severity,
    )
    return shift_plan(
        source,
        schedule,
        classes=config.class_order,
        test_images=config.test_images,
        seed=config.seed,
    )


def _blurry(source: ImageSource, config: RunConfig) -> StreamPlan:
    return blurry_plan(source, _class(source, config), blur=config.blur, seed=config.seed)


def _long_tailed(source: ImageSource, config: RunConfig) -> StreamPlan:
    return long_tailed_plan(
        source,
        _class(source, config),
        imbalance=config.imbalance,
        tail=config.tail,
        head_images=config.head_images,
        seed=config.seed,
    )


def _repetition(source: ImageSource, config: RunConfig) -> StreamPlan:
    return repetition_plan(
        source,
        num_experiences=config.num_experiences,
        repeat=config.repeat,
        order=config.class_order,
        seed=config.seed,
    )


def _class_domain(source: ImageSource, config: RunConfig) -> StreamPlan:
    return class_domain_plan(
        source,
        split_classes(len(source.classes), config.increment, config.first),
        order=config.domain_order,
        classes=config.class_order,
        seed=config.seed,
    )


_PLANNERS: Final[Mapping[str, Callable[[ImageSource, RunConfig], StreamPlan]]] = {
    "class": _class,
    "domain": _domain,
    "shift": _shift,
    "blurry": _blurry,
    "long_tailed": _long_tailed,
    "repetition": _repetition,
    "class_domain": _class_domain,
}
