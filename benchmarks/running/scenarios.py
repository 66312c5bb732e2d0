"""From the keys of a recipe to the plan of a stream."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from cl_adapters.benchmarks.data.datasets import DataSets
from cl_adapters.benchmarks.data.features import ImageFeatureExtractor
from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.joining import JoinedSource, LearnedSource
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.recipe_parts import (
    Blurry,
    ByGroups,
    ClassDomain,
    Datasets,
    DomainIncremental,
    LongTailed,
    Repetition,
    Shift,
)
from cl_adapters.benchmarks.streams.blurry import blurry_plan
from cl_adapters.benchmarks.streams.class_groups import positions_of_groups
from cl_adapters.benchmarks.streams.class_incremental import (
    make_plan,
    plan_of_groups,
    split_classes,
)
from cl_adapters.benchmarks.streams.class_names import named_order
from cl_adapters.benchmarks.streams.continued import continued_plan, learned_plan
from cl_adapters.benchmarks.streams.datasets import Cut, datasets_plan
from cl_adapters.benchmarks.streams.domains import class_domain_plan, domain_plan
from cl_adapters.benchmarks.streams.long_tailed import long_tailed_plan
from cl_adapters.benchmarks.streams.plans import StreamPlan
from cl_adapters.benchmarks.streams.repetition import repetition_plan
from cl_adapters.benchmarks.streams.shifts import Schedule, shift_plan
from cl_adapters.benchmarks.streams.task_free import flow_images, flow_of, task_free_plan
from cl_adapters.benchmarks.streams.watch import BoundaryDetector, Watch

__all__ = ["plan_segments", "plan_stream", "stream_name"]


def plan_stream(source: ImageSource, config: RunConfig) -> StreamPlan:
    """Returns the plan of a recipe's stream.

    Raises:
        InputError: If the recipe does not fit the source.
    """
    if isinstance(source, JoinedSource):
        return continued_plan(plan_stream(source.before, config), source)
    if isinstance(source, LearnedSource):
        return learned_plan(source)
    return _PLANNERS[config.scenario](source, config, config.scenario_keys)


def plan_segments(
    source: ImageSource,
    plan: StreamPlan,
    config: RunConfig,
    extractor: ImageFeatureExtractor,
    boundary_detector: BoundaryDetector,
) -> StreamPlan:
    """Returns a recipe's stream without boundaries, its experiences being what is announced.

    Args:
        source: Where the images come from.
        plan: The recipe's stream with boundaries.
        config: The recipe; one that is not task-free leaves the plan as it is.
        extractor: What computes the images' features.
        boundary_detector: What finds the boundaries.

    Raises:
        InputError: If the detector is unknown or a number is out of its range.
    """
    told = config.boundaries
    if told is None:
        return plan
    watch = Watch(
        detector=told.task_free,
        reference=told.reference,
        window=told.window,
        patience=told.patience,
        false_alarm=told.false_alarm,
        max_images=told.max_images,
    )
    images = flow_images(source, plan, flow_of(plan, config.seed))
    boundaries = boundary_detector.boundaries(images, extractor, watch, config.seed)
    return task_free_plan(source, plan, boundaries, seed=config.seed, watch=watch)


def stream_name(source: ImageSource, config: RunConfig) -> str:
    """Returns the name of a recipe's stream: its source, its scenario and what is special."""
    scenario = [] if config.scenario == "class" else [config.scenario]
    mode = [] if config.task_free is None else ["task_free"]
    tested = [] if config.validation is None else ["validation"]
    looked = ["quick_look"] if config.max_classes or config.max_images_per_class else []
    return "-".join([source.name, *scenario, *mode, *tested, *looked])


def _order(source: ImageSource, config: RunConfig) -> str | tuple[int, ...]:
    return named_order(config.class_order, source.classes)


def _class(source: ImageSource, config: RunConfig, options: ByGroups) -> StreamPlan:
    if options.experiences is not None:
        return plan_of_groups(source, *positions_of_groups(options.experiences, source.classes))
    return make_plan(
        source,
        increment=options.increment,
        first=options.first,
        order=_order(source, config),
        seed=config.seed,
    )


def _domain(source: ImageSource, config: RunConfig, options: DomainIncremental) -> StreamPlan:
    return domain_plan(
        source, order=options.domain_order, classes=_order(source, config), seed=config.seed
    )


def _shift(source: ImageSource, config: RunConfig, options: Shift) -> StreamPlan:
    schedule = Schedule(
        num_experiences=options.num_experiences,
        changes=options.changes,
        recurring=options.recurring,
        shifts=[kind.strip() for kind in options.shifts.split(",") if kind.strip()],
        transition=options.transition,
        severity=options.severity,
    )
    return shift_plan(
        source,
        schedule,
        classes=_order(source, config),
        test_images=options.test_images,
        seed=config.seed,
    )


def _blurry(source: ImageSource, config: RunConfig, options: Blurry) -> StreamPlan:
    return blurry_plan(source, _class(source, config, options), blur=options.blur, seed=config.seed)


def _long_tailed(source: ImageSource, config: RunConfig, options: LongTailed) -> StreamPlan:
    return long_tailed_plan(
        source,
        _class(source, config, options),
        imbalance=options.imbalance,
        tail=options.tail,
        head_images=options.head_images,
        seed=config.seed,
    )


def _repetition(source: ImageSource, config: RunConfig, options: Repetition) -> StreamPlan:
    return repetition_plan(
        source,
        num_experiences=options.num_experiences,
        repeat=options.repeat,
        order=_order(source, config),
        seed=config.seed,
    )


def _class_domain(source: ImageSource, config: RunConfig, options: ClassDomain) -> StreamPlan:
    return class_domain_plan(
        source,
        split_classes(len(source.classes), options.increment, options.first),
        order=options.domain_order,
        classes=_order(source, config),
        seed=config.seed,
    )


def _datasets(source: DataSets, config: RunConfig, options: Datasets) -> StreamPlan:
    cuts = [
        Cut(
            increment=each.increment or options.increment,
            num_experiences=each.num_experiences,
            class_order=each.class_order,
        )
        for each in options.datasets
    ]
    return datasets_plan(
        source, cuts, order=options.dataset_order, classes=config.class_order, seed=config.seed
    )


# Each takes the options of its scenario.
_PLANNERS: Final[Mapping[str, Callable[[Any, RunConfig, Any], StreamPlan]]] = {
    "class": _class,
    "domain": _domain,
    "shift": _shift,
    "blurry": _blurry,
    "long_tailed": _long_tailed,
    "repetition": _repetition,
    "class_domain": _class_domain,
    "datasets": _datasets,
}
