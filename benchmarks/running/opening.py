"""Opens the images of a recipe, with those of the parts that come after the rest."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cl_adapters.benchmarks.data.datasets import join_datasets, of_domain
from cl_adapters.benchmarks.data.folders import class_images
from cl_adapters.benchmarks.data.images import ImageSource, split_off
from cl_adapters.benchmarks.data.joining import LearnedSource, join, learned_source
from cl_adapters.benchmarks.data.quick_look import quick_look
from cl_adapters.benchmarks.data.sources import in_text_order, open_source
from cl_adapters.benchmarks.running.parent import Parent
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.recipe_parts import NO_OLD_TEST, Continued, DataSet
from cl_adapters.errors import InputError
from cl_adapters.paths import user_path

__all__ = ["open_images"]

_READING: Final = (
    "class_depth", "domain_folders", "image_column", "label_column", "max_megapixels", "test_set",
)  # fmt: skip


def open_images(config: RunConfig, parent: Parent | None = None) -> ImageSource:
    """Opens the images of a recipe; under a published protocol in the order its authors' code has.

    That code numbers the classes of a folder by their names as text, `10` before `2`, and so a
    published class order means something else where the names are bare numbers.

    With `validation`, what is tested on is cut from the training images by their content, and the
    source no longer leads to its test images.

    Args:
        config: The recipe.
        parent: The run that the recipe continues; needed where a part says that the images of
            before are no longer there.

    Raises:
        InputError: If data cannot be read, or a part's classes do not fit what was there before.
    """
    parts: Sequence[Continued] = config.continued
    starts = [number for number, part in enumerate(parts) if part.old_test is not None]
    if starts:
        source: ImageSource = _learned(config, starts[-1], parent)
        parts = parts[starts[-1] :]
    else:
        source = _opened(config)
    for part in parts:
        source = _continued(source, part, config)
    return source


def _opened(config: RunConfig) -> ImageSource:
    if config.datasets is not None:
        return join_datasets([_data_set(each, config) for each in config.datasets])
    source = _looked_at(open_source(config.source, config.read_options), config)
    if config.protocol:
        source = in_text_order(source)
    return _validated(source, config)


def _data_set(given: DataSet, config: RunConfig) -> ImageSource:
    """Returns one of several data sets; what it does not say of its reading, the recipe says."""
    unsaid = {name: getattr(config, name) for name in _READING if getattr(given, name) is None}
    whole = open_source(given.data, given.model_copy(update=unsaid).read_options)
    if given.domain is not None:
        whole = of_domain(whole, given.domain)
    # What a data set says it is cut down to is all of it here; a quick look is at a part of that.
    cut = quick_look(whole, given.max_classes, given.max_images_per_class)
    part = _looked_at(replace(cut, reading=whole.reading), config)
    return replace(_validated(part, config), name=given.name)


def _looked_at(source: ImageSource, config: RunConfig) -> ImageSource:
    return quick_look(
        source,
        config.max_classes,
        config.max_images_per_class,
        is_tested=config.validation is None,
    )


def _validated(source: ImageSource, config: RunConfig) -> ImageSource:
    if config.validation is None:
        return source
    train, held_out = split_off(source.train, config.validation)
    return replace(source, train=train, test=held_out)


def _continued(source: ImageSource, part: Continued, config: RunConfig) -> ImageSource:
    if not user_path(part.data).exists():
        raise InputError(f"data {part.data!r} must be a folder or a file that exists")
    opened = _validated(open_source(user_path(part.data), part.read_options), config)
    has_domains = config.scenario in ("domain", "class_domain") and opened.train.domains is not None
    return join(
        source,
        opened,
        increment=part.increment,
        by_domain=bool(part.domain_folders) or has_domains,
    )


def _learned(config: RunConfig, number: int, parent: Parent | None) -> LearnedSource:
    """Returns what stands for all that was learned before a part."""
    part = config.continued[number]
    if parent is None:
        raise InputError(
            f"recipe key `old_test` of part {part.data!r} must go with the run that it continues: "
            "`cl-adapters continue`"
        )
    before = parent.before(len(config.continued) - 1 - number)
    is_there = part.old_test is not None and part.old_test != NO_OLD_TEST
    return learned_source(before, class_images(str(part.old_test)) if is_there else None)
