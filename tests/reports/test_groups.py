from pathlib import Path
from typing import Any

import pytest

from cl_adapters.records.upgrade import EARLIER_DEFAULTS
from cl_adapters.reports.groups import Group, file_name, group_runs
from cl_adapters.reports.load import load_runs
from tests.reports.conftest import MakeRun
from tests.reports.lines import append_event


def _groups(tmp_path: Path, *, force: bool = False) -> list[Group]:
    return group_runs(load_runs([tmp_path / "runs"]).finished, force=force)


def test_seeds_share_a_row_and_options_do_not(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run("lae", seed, options={"peft": "lora", "rank": 5}, decay=0.05)
        make_run("lae", seed, options={"peft": "prefix", "rank": 5}, decay=0.15)
        make_run("simplecil", seed, options={"rank": 9}, decay=0.25)
    (group,) = _groups(tmp_path)
    assert [(row.label, row.seeds) for row in group.rows] == [
        ("lae (peft=lora)", [0, 1]),
        ("lae (peft=prefix)", [0, 1]),
        ("simplecil", [0, 1]),
    ]
    assert group.notes == ()
    assert group.rows[0].classes_seen == group.rows[0].progress == [2, 4, 6, 8]
    assert group.progress_heading == "Number of classes seen"


def test_defaults_of_earlier_versions_have_one_name(make_run: MakeRun, tmp_path: Path) -> None:
    earlier = EARLIER_DEFAULTS["sema"]
    for options in ({}, {"lr": 0.1}, earlier, {**earlier, "lr": 0.1}, {"watch": "slots"}):
        make_run("sema", options=options)
    (group,) = _groups(tmp_path)
    assert {row.label for row in group.rows} == {
        "sema",
        "sema (lr=0.1)",
        "sema (in slots)",
        "sema (in slots, lr=0.1)",
        "sema (watch=slots)",
    }


def test_fidelity_makes_another_row(make_run: MakeRun, tmp_path: Path) -> None:
    for fidelity in ("default", "official"):
        make_run("mos", config={"options": {}, "fidelity": fidelity, "device": fidelity})
    (group,) = _groups(tmp_path)
    assert {row.label for row in group.rows} == {
        "mos (fidelity=default)",
        "mos (fidelity=official)",
    }


def test_precision_makes_another_row(make_run: MakeRun, tmp_path: Path) -> None:
    """Numbers of two formats are two methods' numbers, not one with a wider interval."""
    for seed in (0, 1):
        for precision in ("fp32", "bf16"):
            make_run("mos", seed, config={"options": {}, "precision": precision, "seed": seed})
    (group,) = _groups(tmp_path)
    assert len(group.rows) == 2
    assert [len(row.runs) for row in group.rows] == [2, 2]
    assert {run.record.config["precision"] for run in group.rows[0].runs} != {"fp32", "bf16"}


def _with_files(**plugins: str) -> dict[str, Any]:
    return {"options": {}, "strategy": "my/a.py:A", "stream": "s.py:S", "plugins": plugins}


def test_a_changed_plugin_is_another_method_and_a_moved_one_is_not(
    make_run: MakeRun, tmp_path: Path
) -> None:
    first, second = "1" * 64, "2" * 64
    files = [
        {"my/a.py:A": first, "s.py:S": first},
        {"../a.py:A": first, "s.py:S": second},  # moved, and images whose checksum is the same
        {"my/a.py:A": second, "s.py:S": first},
    ]
    for seed, plugins in enumerate(files):
        make_run("a.A", seed, config=_with_files(**plugins))
    make_run("a.A", 3, config=_with_files(**{"my/a.py:A": first, "d.py:D": first}))
    (group,) = _groups(tmp_path)
    assert {row.label: row.seeds for row in group.rows} == {
        "a.A (file=11111111)": [0, 1],
        "a.A (file=22222222)": [2],
        "a.A (file=11111111, file of d.D=11111111)": [3],
    }


@pytest.mark.parametrize(("kind", "key"), [("cache", "earlier_hits"), ("memo", "inherited")])
def test_seconds_of_a_filled_cache_are_told(
    make_run: MakeRun, tmp_path: Path, kind: str, key: str
) -> None:
    for seed in (0, 1, 2):
        folder = make_run("simplecil", seed)
        counts = {"mode": "exact", "read": 9, "computed": 1, key: 4 * (seed > 0)}
        append_event(folder, kind, 1, 0, **counts)
    (group,) = _groups(tmp_path)
    (note,) = group.notes
    assert note.startswith("simplecil, seeds 1, 2: the cache held features that earlier runs had")


def test_answers_that_a_test_batch_decides_are_told(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, by_batch in ((0, ""), (1, "selection=batch")):
        folder = make_run("l2p", seed)
        facts = {"reads": "class token", "by_batch": by_batch, "batch_images": 64 * bool(by_batch)}
        for experience in (0, 1):
            append_event(folder, "prompts", experience, 0, **facts)
    (group,) = _groups(tmp_path)
    (note,) = group.notes
    assert note.startswith(
        "l2p: under selection=batch the answer for an image depends on the others"
    )
    assert "test batch, of 64 images" in note


def test_missing_seeds_are_named(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        make_run("lae", seed)
    make_run("finetune", 1)
    (group,) = _groups(tmp_path)
    assert group.notes == ("finetune lacks seeds 0, 2, which other methods here have.",)


def test_a_copied_run_does_not_count_twice(make_run: MakeRun, tmp_path: Path) -> None:
    first = make_run()
    copy = make_run(folder=tmp_path / "runs" / "zz")
    (group,) = _groups(tmp_path)
    assert [run.folder for run in group.rows[0].runs] == [first]
    assert str(copy) in group.notes[0]


def test_protocols_stay_apart_unless_forced(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(fingerprint={"data": "a", "weights": "one"})
    make_run(folder=tmp_path / "runs" / "b", fingerprint={"data": "a", "weights": "two"})
    apart = _groups(tmp_path)
    assert len(apart) == 2
    assert len({group.slug for group in apart}) == 2
    assert not any(group.mixed for group in apart)
    (mixed,) = _groups(tmp_path, force=True)
    assert mixed.mixed.startswith("mixed protocols: ")
    assert mixed.mixed.endswith("differ in weights")
    assert mixed.slug.endswith("-mixed")
    assert len(mixed.rows) == 2  # never averaged over protocols
    assert {row.label for row in mixed.rows} == {f"lae @{name}" for name in mixed.protocols}


def test_streams_are_never_merged(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(stream="a/b")
    make_run(stream="a-b")
    slugs = [group.slug for group in _groups(tmp_path, force=True)]
    assert len(set(slugs)) == 2


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("../../x", "x"),
        ("<script>", "script"),
        ("", "unnamed"),
        ("..", "unnamed"),
        ("é", "unnamed"),
    ],
)
def test_file_names_are_harmless(text: str, name: str) -> None:
    assert file_name(text) == name
    assert len(file_name("a" * 500)) <= 60


def test_experiences_of_other_sizes_are_another_protocol(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("lae", sizes=(2, 2, 2, 2))
    make_run("lae", seed=1, sizes=(4, 2, 2))  # the same data, weights and increment
    assert [len(group.rows[0].runs) for group in _groups(tmp_path)] == [1, 1]
    (merged,) = _groups(tmp_path, force=True)
    assert merged.mixed.startswith("mixed protocols: ")
