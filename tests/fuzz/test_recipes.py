"""Recipes and options of chance: what is taken is what was given, the rest is refused in a sentence."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st

from cl_adapters.benchmarks.running import batch
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.errors import InputError
from cl_adapters.strategies import STRATEGIES
from tests.benchmarks.killable import SOURCE
from tests.fuzz import recipes_of_chance as chance
from tests.fuzz.fuzzing import fuzz

Record = Callable[[str, object], None]
QUICK, LONG = 20, 300
NETWORK = {"backbone": "test_vit", "weights": "random", "image_size": 16}


def refused(act: Callable[[], Any]) -> Any:
    """Returns what came of it; None if one sentence refuses it."""
    try:
        return act()
    except InputError as error:
        said = str(error)
    assert said.strip()
    assert "\n" not in said, said
    return None


def try_recipe(strategy: str, values: dict[str, Any]) -> None:
    """Up to where training would begin."""
    recipe = {"strategy": strategy, **NETWORK, **values}
    configs = refused(lambda: batch.expand(recipe, recipe=None, seeds=1, settings=[]))
    for config in configs or []:
        check_values(recipe, config)
        prepared = refused(partial(prepare, config, source=SOURCE))
        if prepared is not None:
            assert json.loads(json.dumps(prepared.record.config, allow_nan=False))
            assert RunConfig.parse(prepared.record.config) == prepared.config


def check_values(recipe: dict[str, Any], config: RunConfig) -> None:
    assert RunConfig.parse(config.model_dump(mode="json")) == config
    for key, value in recipe.items():
        if key not in ("strategy", "options"):
            found = getattr(config, key)
            assert value is None or chance.means_the_same(value, found), (key, value, found)


def try_options(name: str, options: dict[str, Any]) -> None:
    """As in a recipe, and as texts of `--set`."""
    config = STRATEGIES[name].config_class()
    taken = refused(lambda: config.override(options))
    if taken is not None:
        json.dumps(taken.model_dump(mode="json"), allow_nan=False)
        for key, value in options.items():
            found = getattr(taken, key, None)
            if isinstance(found, bool | int | float | str):
                assert chance.means_the_same(value, found), (name, key, value, found)
    pairs = [f"{key}={value}" for key, value in options.items()]
    configs = refused(
        lambda: batch.expand({"strategy": name}, recipe=None, seeds=1, settings=pairs)
    )
    for each in configs or []:
        for key, value in options.items():
            found = each.options.get(key.strip())
            if isinstance(found, bool | int | float):
                assert chance.means_the_same(str(value), found), (name, key, value, found)


def fuzz_recipes(examples: int) -> None:
    strategies = st.sampled_from(["simplecil", "lae", "finetune"])
    fuzz(try_recipe, examples, strategies, chance.recipes())


def fuzz_options(examples: int) -> None:
    for name in STRATEGIES:
        fuzz(partial(try_options, name), examples, chance.options_of(name))


def test_recipes_are_taken_as_they_are_or_refused(record_property: Record) -> None:
    fuzz_recipes(QUICK)
    record_property("reliability: odd recipes and options", QUICK)


def test_options_are_taken_as_they_are_or_refused(record_property: Record) -> None:
    fuzz_options(QUICK)
    record_property("reliability: odd recipes and options", QUICK * len(STRATEGIES))


@pytest.mark.slow
def test_many_recipes_are_taken_as_they_are_or_refused(record_property: Record) -> None:
    fuzz_recipes(2 * LONG)
    record_property("reliability: odd recipes and options", 2 * LONG)


@pytest.mark.slow
def test_many_options_are_taken_as_they_are_or_refused(record_property: Record) -> None:
    fuzz_options(LONG)
    record_property("reliability: odd recipes and options", LONG * len(STRATEGIES))
