"""What of its images and its stream belongs into a run's fingerprint."""

from cl_adapters.benchmarks.data.images import ImageSource, natural_key
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.streams.class_groups import groups_of
from cl_adapters.benchmarks.streams.datasets import numbered
from cl_adapters.benchmarks.streams.plans import StreamPlan

__all__ = ["fingerprint_of_images"]


def fingerprint_of_images(
    source: ImageSource, config: RunConfig, plan: StreamPlan
) -> dict[str, object]:
    """Returns what the protocol of a run says of its images, and of what comes when.

    Args:
        source: The images, after a quick look took its part of them.
        config: The recipe.
        plan: What its stream holds.
    """
    return {
        "stream": source.name,
        "data": source.describe(),
        **plan.describe(),
        **_names(source, config),
        **({} if config.validation is None else {"validation": config.validation}),
        **_quick_look(config),
        **_experience_names(config, plan),
    }


def _quick_look(config: RunConfig) -> dict[str, object]:
    most = {
        "max_classes": config.max_classes,
        "max_images_per_class": config.max_images_per_class,
    }
    given = {name: value for name, value in most.items() if value is not None}
    return {"quick_look": given} if given else {}


def _experience_names(config: RunConfig, plan: StreamPlan) -> dict[str, object]:
    if config.task_free is not None:
        return {}
    if config.experiences is not None:
        names = [*groups_of(config.experiences), *_names_of_parts(plan)]
        return {"experience_names": names} if len(names) == len(plan.experiences) else {}
    if config.datasets is not None:
        return {"experience_names": numbered(plan)}
    is_named = bool(config.domain_folders) and len(plan.domains) > 0
    return {"experience_names": [each.name for each in plan.domains]} if is_named else {}


def _names_of_parts(plan: StreamPlan) -> list[str]:
    entries = plan.scenario.get("continued", [])
    return [name for each in entries for name in each["names"]] if isinstance(entries, list) else []


def _names(source: ImageSource, config: RunConfig) -> dict[str, str]:
    # The same rule of class order is another order where text and numbers sort differently.
    names = list(source.classes)
    is_text = names == sorted(names) != sorted(names, key=natural_key)
    return {"class_names": "in text order"} if config.protocol and is_text else {}
