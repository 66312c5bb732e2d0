"""The recipe: flat outside, parts inside, the same digests as ever, one source of all that is said."""

import copy
import json
import pickle
import re
from pathlib import Path

import pytest

from cl_adapters.benchmarks.running.batch import expand
from cl_adapters.benchmarks.running.recipe import RECIPE_KEYS, RunConfig
from cl_adapters.benchmarks.running.recipe_keys import recipe_keys, recipe_page
from cl_adapters.benchmarks.running.recipe_parts import SCENARIOS
from cl_adapters.benchmarks.streams.changes import KINDS
from cl_adapters.benchmarks.streams.kinds import KIND_NAMES
from cl_adapters.benchmarks.sweeps.space import read_space
from cl_adapters.benchmarks.sweeps.sweep import expand_grid
from cl_adapters.errors import EarlierNameWarning, InputError
from cl_adapters.records.files import digest
from cl_adapters.records.upgrade import as_named
from cl_adapters.strategies import find_strategy

DOCS = Path(__file__).parents[3] / "docs"
# Recipes of every scenario with the keys and the digest that they had before there were parts.
EARLIER = json.loads((Path(__file__).parent / "earlier_recipes.json").read_text())


@pytest.mark.parametrize("row", EARLIER, ids=[row["digest"] for row in EARLIER])
def test_a_recipe_keeps_its_keys_and_its_digest(row: dict[str, object]) -> None:
    config = RunConfig.parse(row["recipe"])
    written = config.model_dump(mode="json")
    has_places = written["data"] is not None or "datasets" in written
    assert ("stream" in written) is not has_places, "what was used is named"
    named = as_named(written)
    since = named.pop("defaults", None)  # of a strategy whose runs would go on under others
    assert since == (5 if written["strategy"] == "sema" else None)
    assert sorted(named) == row["keys"]
    assert digest(named) == row["digest"]
    assert RunConfig.parse(written) == config, "what is written is what was read"
    assert RunConfig(**row["recipe"]) == config


def test_the_table_of_earlier_recipes_has_every_scenario_with_and_without_boundaries() -> None:
    found = {(row["recipe"].get("scenario"), "task_free" in row["recipe"]) for row in EARLIER}
    assert found >= {(name, told) for name in SCENARIOS for told in (True, False)}


def test_keys_of_parts_are_attributes_and_none_where_the_recipe_has_no_such_key() -> None:
    config = RunConfig.parse({"strategy": "lae", "scenario": "blurry", "blur": 0.3})
    assert (config.scenario, config.blur, config.increment) == ("blurry", 0.3, 2)
    assert (config.repeat, config.task_free, config.window) == (None, None, None)
    assert config.augment == "none"
    with pytest.raises(AttributeError, match="no attribute 'blurr'"):
        _ = config.blurr
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config


def test_an_empty_key_of_another_scenario_is_no_key() -> None:
    given = {"strategy": "lae", "scenario": "repetition", "increment": None, "window": None}
    assert "increment" not in RunConfig.parse(given).model_dump()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": 30}, "key `window` must go with key `task_free`, got 30 alone"),
        ({"task_free": "ks", "window": 3}, "recipe key `window`: .*greater than or equal to 20"),
        ({"pipeline": "lae", "augment": "crop"}, "`augment` must go with pipeline 'plain', got"),
        (
            {"pipeline": "pilto"},
            "`pipeline`: Input should be 'plain', 'pilot', 'lae', 'ranpac' or 'inflora', got 'pil",
        ),
        ({"scenario": 3}, "`scenario`: Input should be 'class', .* or 'datasets', got 3"),
        ({"crop_scale": 2}, "recipe key `crop_scale`: .*less than or equal to 1, got 2"),
        ({"stream": "digits-shift", "scenario": "class"}, "must be 'shift', got 'class'"),
        ({"scenario_keys": {}}, "unknown recipe key 'scenario_keys'"),
        ({"options": 3}, "recipe key `options`: .*got 3"),
        ({"increment": 0}, "recipe key `increment`: .*greater than or equal to 1, got 0"),
    ],
)
def test_a_wrong_key_is_named_as_it_was_written(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        RunConfig.parse({"strategy": "lae", **values})
    assert "\n" not in str(caught.value)


# --- what is said of each key -------------------------------------------------------------------


def test_every_key_says_what_it_means() -> None:
    keys = recipe_keys()
    assert tuple(keys) == RECIPE_KEYS
    assert all(key.description for key in keys.values())
    assert keys["num_experiences"].defaults == {"shift": 14, "repetition": 5}
    assert keys["tail"].choices == ("ordered", "shuffled")
    assert keys["crop_scale"].rule == "above 0 and at most 1"
    of_all = "class, blurry, long_tailed, class_domain, datasets: "
    assert keys["increment"].help().startswith(of_all)
    assert keys["increment"].default() == "2", "a data set's is all of it, which the text says"


def test_the_page_of_the_recipe_is_what_the_code_says() -> None:
    page = (DOCS / "reference" / "recipe.md").read_text("utf-8")
    assert page == recipe_page(), "run: python docs/generate.py"
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == set(RECIPE_KEYS)


def test_names_that_stand_apart_from_their_code_are_those_of_the_code() -> None:
    assert tuple(KINDS) == KIND_NAMES


# --- options under earlier names ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "earlier", "now", "value"),
    [
        ("lae", "pet", "peft", "lora"),
        ("mos", "width", "size", 7),
        ("sema", "memo_megabytes", "cache_megabytes", 7.0),
    ],
)
def test_an_option_under_its_earlier_name_is_the_same_run(
    strategy: str, earlier: str, now: str, value: str | float
) -> None:
    def recipes(key: str) -> list[object]:
        return [
            expand({"strategy": strategy}, recipe=None, seeds=1, settings=[f"{key}={value}"])[0],
            expand({"strategy": strategy}, recipe=None, seeds=1, settings=[f"{strategy}.{key}={value}"])[0],
            RunConfig.parse({"strategy": strategy, "options": {key: value}}),
            expand_grid({"strategy": strategy, "options": {key: [value]}})[0],
        ]  # fmt: skip

    today = recipes(now)
    assert today[0].options == {now: value}
    assert len({digest(each.model_dump(mode="json")) for each in today}) == 1
    with pytest.warns(EarlierNameWarning, match=f"option `{earlier}` is now called `{now}`"):
        assert recipes(earlier) == today


def test_a_search_knows_earlier_names() -> None:
    options = find_strategy("lae").config_class()
    with pytest.warns(EarlierNameWarning, match="`pet` is now called `peft`"):
        assert list(read_space(options, ["pet=adapter,lora"])) == ["peft"]
