"""Names of earlier versions: options, tensors, records, roles."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from cl_adapters.records.files import add_checksum, digest
from cl_adapters.records.run_record import RunRecord, find_run_folder
from cl_adapters.records.upgrade import (
    EARLIER_DEFAULTS,
    EARLIER_NAMES,
    OPTION_NAMES,
    add_new_tensors,
    as_named,
    option_names,
    upgrade_config,
    upgrade_options,
    upgrade_record,
    upgrade_state,
)
from cl_adapters.strategies.core.paths import SLOTS
from cl_adapters.strategies.sema import SEMAConfig


@pytest.mark.parametrize(
    ("strategy", "old", "new"),
    [
        ("sema", {"pet": "lora", "width": 4}, {"peft": "lora", "size": 4}),
        ("sema", {"classifier": "linear"}, {"head": "linear"}),
        ("sema", {"classifier": "linear", "head": "ridge"}, {"head": "ridge"}),
        ("sema", {"head": "ridge", "classifier": "linear"}, {"head": "ridge"}),
        ("sema", {"memo_megabytes": 9.0}, {"cache_megabytes": 9.0}),
        ("mos", {"guess": "discriminant"}, {"task_predictor": "discriminant"}),
        (
            "lae",
            {"pet": "prefix", "size": 3, "width": 1},
            {"peft": "prefix", "size": 3, "width": 1},
        ),
        ("mine.py:Mine", {"guess": 1, "width": 2}, {"guess": 1, "width": 2}),
        ("finetune", {}, {}),
    ],
)
def test_options_get_todays_names(
    strategy: str, old: dict[str, object], new: dict[str, object]
) -> None:
    assert upgrade_options(strategy, old) == new
    assert upgrade_options(strategy, new) == new, "twice is once"


def test_earlier_defaults_are_those_that_the_method_calls_its_slots() -> None:
    assert EARLIER_DEFAULTS["sema"] == SLOTS
    assert EARLIER_NAMES.keys() == EARLIER_DEFAULTS.keys()
    config = SEMAConfig().override(SLOTS).model_dump()
    assert {name: config[name] for name in SLOTS} == SLOTS
    official = SEMAConfig.official().model_dump()
    assert {name: official[name] for name in SLOTS} == SLOTS


def test_a_record_before_format_5_gets_the_defaults_of_its_time() -> None:
    config = {"fidelity": "default", "options": {"lr": 0.1, "detector": "mmd"}}
    given = {"strategy": "sema", "format": 4, "config": config}
    found = upgrade_record(given)["config"]["options"]
    assert found == {**SLOTS, "lr": 0.1, "detector": "mmd"}
    official = {**given, "config": {**config, "fidelity": "official"}}
    assert upgrade_record(official)["config"]["options"] == config["options"]
    assert upgrade_record({**given, "strategy": "lae"})["config"] == config


def test_no_new_name_is_an_old_one() -> None:
    for strategy in OPTION_NAMES:
        names = option_names(strategy)
        assert not set(names) & set(names.values())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("working.down", "current_adapters.down"),
        ("stored.pet-key_down", "frozen_adapters.peft-key_down"),
        ("guess.sums", "task_predictor.sums"),
        ("3.model.stored.down", "3.model.frozen_adapters.down"),
        ("3.optimizer.0.momentum_buffer", "3.optimizer.0.momentum_buffer"),
        ("heads.working.weight", "heads.working.weight"),
        ("classes.means", "classes.means"),
    ],
)
def test_tensors_get_todays_names(old: str, new: str) -> None:
    assert upgrade_state({old: 1}, "mos") == {new: 1}
    assert upgrade_state({new: 1}, "mos") == {new: 1}


def test_tensors_of_a_plugin_keep_their_names() -> None:
    state = {"working.down": 1, "guess": 2, "stored.up": 3}
    assert upgrade_state(state, "mine.py:Mine") == state


def test_only_a_tensor_that_is_new_is_taken_from_the_strategy() -> None:
    own = {"class_to_task": 1, "model.class_to_task.experience_of": 2, "head": 3}
    assert add_new_tensors({}, own) == {
        "class_to_task": 1,
        "model.class_to_task.experience_of": 2,
    }
    assert add_new_tensors({"class_to_task": 9}, own)["class_to_task"] == 9


def test_a_record_without_a_role_gets_the_usual_one() -> None:
    roles = {"joint": "upper_bound", "avalanche.Cumulative": "upper_bound",
             "finetune": "lower_bound", "simplecil": "baseline", "sema": "method"}  # fmt: skip
    for strategy, role in roles.items():
        assert upgrade_record({"strategy": strategy, "format": 2})["role"] == role
    assert upgrade_record({"strategy": "joint", "role": "other"})["role"] == "other"


def test_a_damaged_record_is_left_as_it_is() -> None:
    for config in (None, [], {"options": 3}, {}):
        assert upgrade_record({"strategy": 7, "config": config})["config"] == config
    assert RunRecord.__dataclass_fields__["role"].default == "method"


def test_a_recipe_over_data_names_no_stream() -> None:
    written = {"strategy": "lae", "stream": "digits", "data": "photos", "seed": 0}
    today = {"strategy": "lae", "data": "photos", "seed": 0}
    assert upgrade_config(written) == today
    assert upgrade_config(today) == today, "twice is once"
    assert as_named(today) == written, "the names of directories stay"
    for streamed in ({"stream": "digits"}, {"stream": "mine.py:make", "data": None}):
        assert upgrade_config(streamed) == streamed
        assert as_named(streamed) == streamed


def test_what_an_earlier_version_wrote_over_data_is_found_and_equal(tmp_path: Path) -> None:
    """Format 4 was first written with a stream beside data; the folder's name counted it."""
    config = {"strategy": "lae", "stream": "digits", "data": "photos", "seed": 0, "options": {}}
    name = f"seed0-{digest(config, 8)}"
    planned = RunRecord(
        strategy="lae",
        stream="photos",
        seed=0,
        config=upgrade_config(config),
        fingerprint={},
        classes=["a"],
        experiences=[[0]],
    )
    assert planned.directory == Path("photos") / "lae" / name
    folder = tmp_path / planned.directory
    folder.mkdir(parents=True)
    written = add_checksum({**asdict(planned), "config": config})
    (folder / "run.json").write_text(json.dumps(written))
    assert RunRecord.read(folder).config == planned.config
    assert find_run_folder(tmp_path, planned) == folder
