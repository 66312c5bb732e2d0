"""From the keys of a recipe to the plan of a stream."""

from cl_adapters.benchmarks.domains import domain_plan
from cl_adapters.benchmarks.images import ImageSource
from cl_adapters.benchmarks.plans import StreamPlan
from cl_adapters.benchmarks.recipe import RunConfig
from cl_adapters.benchmarks.shifts import Schedule, shift_plan
from cl_adapters.benchmarks.streams import make_plan

__all__ = ["plan_stream", "stream_name"]


def plan_stream(source: ImageSource, config: RunConfig) -> StreamPlan:
    """Returns the plan of a recipe's stream.

    Raises:
        InputError: If the recipe does not fit the source.
    """
    if config.scenario == "domain":
        return domain_plan(
            source, order=config.domain_order, classes=config.class_order, seed=config.seed
        )
    if config.scenario == "shift":
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
    return make_plan(
        source,
        increment=config.increment,
        first=config.first,
        order=config.class_order,
        seed=config.seed,
    )


def stream_name(source: ImageSource, config: RunConfig) -> str:
    """Returns the name of a recipe's stream: its source, then the scenario unless it is `class`."""
    return source.name if config.scenario == "class" else f"{source.name}-{config.scenario}"
