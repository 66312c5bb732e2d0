"""A run that goes on with another one is what one long run over the same images would have been."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from filelock import FileLock

from cl_adapters.benchmarks.api import continue_run, run
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.errors import InputError
from cl_adapters.records.events import read_events
from cl_adapters.records.experience_names import called
from cl_adapters.records.learned import read_checkpoint
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions
from cl_adapters.reports.runs import load_runs
from tests.benchmarks import killable
from tests.benchmarks.conftest import InterruptedAt
from tests.benchmarks.months import MONTHS, NAMES, draw, write_months
from tests.marks import by_default


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each month in a folder of its own, and all of them as experiences of one folder, `all`."""
    return write_months(tmp_path_factory.mktemp("photos"))


def recipe(strategy: str) -> dict[str, Any]:
    known = killable.OPTIONS[strategy]
    once = {name: 1 for name in known if name.endswith("epochs") and "freeze_epochs" not in known}
    # Its thresholds hang on how many experiences there are, which months do not say by themselves.
    told = {"experiences_total": 3} if strategy == "inflora" else {}
    options = {"batch_size": 8, **known, **once, **told}
    small = {"image_size": 16, "threads": 1, "cache": "off", "augment": "crop"}
    return {"strategy": strategy, "options": options, **small}


def months(photos: Path, out: Path, strategy: str) -> list[Path]:
    """The first month as a run, and the others each on top of the one before."""
    values = {**recipe(strategy), "data": str(photos / "2026-01"), "increment": 4, "seed": 1}
    folders = run(**values, out=out)
    for month in list(MONTHS)[1:]:
        folders.append(continue_run(folders[-1], photos / month, out=out, cache="off"))
    return folders


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def facts(folder: Path) -> list[list[Any]]:
    """What happened, but for times and for the names of domains, which only the long run has."""
    keys = ("event", "experience", "name", "images", "block", "scores", "adapters", "losses")
    lines = [event.as_line() for event in read_events(folder) if event.event != "domain"]
    return [[line.get(key) for key in keys] for line in lines]


@pytest.mark.parametrize("strategy", by_default(killable.OPTIONS, ["simplecil", "mos"]))
def test_months_one_after_the_other_equal_one_long_run(
    strategy: str, photos: Path, tmp_path: Path
) -> None:
    folders = months(photos, tmp_path / "months", strategy)
    record = RunRecord.read(folders[-1])
    order = {"class_order": ",".join(record.classes), "seed": 1}
    layout = {"data": str(photos / "all"), "domain_folders": True, "scenario": "domain"}
    (long,) = run(**recipe(strategy), **order, **layout, out=tmp_path / "long")
    pd.testing.assert_frame_equal(
        read_predictions(folders[-1]), read_predictions(long), check_exact=True
    )
    ours, theirs = (read_checkpoint(each / "checkpoints", 2).state for each in (folders[-1], long))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert facts(folders[-1]) == facts(long)
    assert record.experiences == RunRecord.read(long).experiences


@pytest.fixture(scope="module")
def parent(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first month: four classes in two experiences."""
    values = {**recipe("simplecil"), "data": str(photos / "2026-01"), "increment": 2}
    return run(**values, out=tmp_path_factory.mktemp("runs"))[0]


def go_on(parent: Path, data: Path, out: Path, **part: Any) -> Path:
    return continue_run(parent, data, out=out, cache="off", **part)


def test_the_parent_stays_as_it_is_and_the_record_names_it(
    parent: Path, photos: Path, tmp_path: Path
) -> None:
    before = contents(parent)
    child = RunRecord.read(go_on(parent, photos / "2026-02", tmp_path))
    assert contents(parent) == before
    assert child.parent == {
        "path": str(parent),
        "sha256": before["run.json"],
        "experiences": 2,
        "samples": 8,  # two test images a class
    }
    assert child.experiences == [[0, 1], [2, 3], [4, 5]]
    assert child.classes == [*RunRecord.read(parent).classes, "elk", "fox"]


def test_a_run_that_began_by_itself_says_nothing_of_a_parent(parent: Path) -> None:
    values = json.loads((parent / "run.json").read_text("utf-8"))
    assert "parent" not in values
    assert "continued" not in values["config"]


def test_new_classes_are_cut_by_the_increment_and_old_ones_come_with_the_first(
    parent: Path, photos: Path, tmp_path: Path
) -> None:
    for label in (2, 4, 5):
        for number in range(30, 34):
            draw(tmp_path / "mixed" / NAMES[label] / f"{number}.png", label, number)
    child = RunRecord.read(go_on(parent, tmp_path / "mixed", tmp_path, increment=1))
    old = RunRecord.read(parent).classes.index("cat")
    assert child.experiences == [[0, 1], [2, 3], [old, 4], [5]]


def test_a_folder_of_months_brings_one_experience_each(
    parent: Path, photos: Path, tmp_path: Path
) -> None:
    for month, labels in {"2026-02": (4,), "2026-03": (1, 5)}.items():
        for label in labels:
            for number in range(3):
                draw(tmp_path / "new" / month / NAMES[label] / f"{number}.png", label, number)
    child = RunRecord.read(go_on(parent, tmp_path / "new", tmp_path, domain_folders=True))
    old = RunRecord.read(parent).classes.index("bee")
    assert child.experiences == [[0, 1], [2, 3], [4], [old, 5]]


def test_a_domain_stream_goes_on_with_a_new_domain(photos: Path, tmp_path: Path) -> None:
    layout = {"data": str(photos / "all"), "domain_folders": True, "scenario": "domain"}
    values = {**recipe("simplecil"), **layout, "domain_order": "2026-01,2026-02"}
    (parent,) = run(**values, out=tmp_path)
    child = go_on(parent, photos / "2026-03", tmp_path)
    domains = [event for event in read_events(child) if event.event == "domain"]
    assert [event.as_line()["domain"] for event in domains] == ["2026-01", "2026-02", "2026-03"]
    assert [event.as_line()["changed"] for event in domains] == [False, True, True]


def test_an_interrupted_one_goes_on_and_a_finished_one_is_left_alone(
    parent: Path, photos: Path, tmp_path: Path, interrupted_at: InterruptedAt
) -> None:
    straight = go_on(parent, photos / "2026-02", tmp_path / "straight", increment=1)
    with interrupted_at(3):
        go_on(parent, photos / "2026-02", tmp_path / "stopped", increment=1)
    folder = go_on(parent, photos / "2026-02", tmp_path / "stopped", increment=1)
    assert RunRecord.read(folder).state == "finished"
    for name in ("predictions.parquet", "checkpoints/experience-0003/learned.safetensors"):
        assert (folder / name).read_bytes() == (straight / name).read_bytes()
    before = contents(folder)
    assert go_on(parent, photos / "2026-02", tmp_path / "stopped", increment=1) == folder
    assert contents(folder) == before


@pytest.mark.parametrize(
    "numbers", [(2, 5), pytest.param(range(1, 15), marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_killed_at_a_file_it_begins_again_or_goes_on(
    numbers: Sequence[int], parent: Path, photos: Path, tmp_path: Path
) -> None:
    """The first writes are those of what is taken over, where a half is worse than nothing."""
    torch.set_num_threads(1)

    def work(out: Path = tmp_path / "killed") -> None:
        go_on(parent, photos / "2026-02", out)

    work(tmp_path / "straight")
    before = contents(parent)
    for number in numbers:
        assert killable.killed_at_write(number, work)
    work()
    assert killable.outcome(tmp_path / "killed") == killable.outcome(tmp_path / "straight")
    assert contents(parent) == before


class TestWithoutOldImages:
    """The images of the first month are gone when the second one comes."""

    @pytest.fixture
    def lonely(self, photos: Path, tmp_path: Path) -> Path:
        month = tmp_path / "gone"
        month.symlink_to(photos / "2026-01", target_is_directory=True)
        values = {**recipe("finetune"), "data": str(month), "increment": 2}
        (folder,) = run(**values, out=tmp_path / "runs")
        month.unlink()
        return folder

    def test_only_new_images_are_evaluated_and_training_is_the_same(
        self, lonely: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        child = continue_run(lonely, photos / "2026-02", out=tmp_path, cache="off", quiet=False)
        assert "only the new images are evaluated" in " ".join(capfd.readouterr().err.split())
        rows = read_predictions(child)
        last = rows[rows["experience"] == 2]
        assert set(last["target_experience"]) == {2}
        assert set(last["sample"]) == {8, 9, 10, 11}, "numbers behind those of the parent"
        (tmp_path / "gone").symlink_to(photos / "2026-01", target_is_directory=True)
        whole = continue_run(lonely, photos / "2026-02", out=tmp_path / "whole", cache="off")
        ours, theirs = (read_checkpoint(each / "checkpoints", 2).state for each in (child, whole))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        all_rows = read_predictions(whole)
        new = all_rows[(all_rows["experience"] == 2) & (all_rows["target_experience"] == 2)]
        names = ["sample", "target", "prediction", "confidence"]
        pd.testing.assert_frame_equal(
            last[names].reset_index(drop=True), new[names].reset_index(drop=True)
        )

    def test_old_test_images_from_another_folder_are_evaluated(
        self, lonely: Path, photos: Path, tmp_path: Path
    ) -> None:
        kept = photos / "2026-01" / "test"
        child = go_on(lonely, photos / "2026-02", tmp_path, old_test=kept)
        rows = read_predictions(child)
        last = rows[rows["experience"] == 2]
        assert last.groupby("target_experience").size().to_dict() == {0: 4, 1: 4, 2: 4}
        assert last["sample"].min() == 8
        (group,) = load_runs([child]).groups
        replaced = f"were replaced by those of {kept};"
        assert any(replaced in each for each in group.notes)
        again = go_on(child, photos / "2026-03", tmp_path)  # its parent's folder of old images
        rows = read_predictions(again)
        last = rows[rows["experience"] == 3]
        assert last.groupby("target_experience").size().to_dict() == {0: 4, 1: 4, 2: 4, 3: 4}
        assert RunRecord.read(again).classes[4:] == ["elk", "fox"]

    def test_old_test_images_of_an_unknown_class_are_refused(
        self, lonely: Path, photos: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match="class 'elk' of the old test images must be one that"):
            go_on(lonely, photos / "2026-02", tmp_path, old_test=photos / "2026-02" / "test")

    def test_a_method_that_needs_old_images_says_so(self, photos: Path, tmp_path: Path) -> None:
        month = tmp_path / "gone"
        month.symlink_to(photos / "2026-01", target_is_directory=True)
        (parent,) = run(**recipe("joint"), data=str(month), increment=4, out=tmp_path / "runs")
        month.unlink()
        with pytest.raises(InputError, match="'joint' must have the images of all experiences"):
            go_on(parent, photos / "2026-02", tmp_path / "more")
        assert not (tmp_path / "more").exists()


def test_a_class_in_another_spelling_is_refused(parent: Path, photos: Path, tmp_path: Path) -> None:
    for number in range(3):
        draw(tmp_path / "new" / "Ant" / f"{number}.png", 0, number)
    rule = "class 'Ant' of 'new' must be spelt as the class 'ant' that was learned"
    with pytest.raises(InputError, match=rule):
        go_on(parent, tmp_path / "new", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_that_have_changed_are_refused(photos: Path, tmp_path: Path) -> None:
    for label in (0, 1):
        for number in range(4):
            draw(tmp_path / "photos" / NAMES[label] / f"{number}.png", label, number)
    data = tmp_path / "photos"
    (parent,) = run(**recipe("simplecil"), data=str(data), increment=1, out=tmp_path / "runs")
    draw(data / "ant" / "9.png", 0, 9)
    with pytest.raises(InputError, match="they have changed; put them back, or give --old-test"):
        go_on(parent, photos / "2026-02", tmp_path / "out")
    assert go_on(parent, photos / "2026-02", tmp_path / "out", old_test="none")


def test_an_unfinished_run_is_refused(
    photos: Path, tmp_path: Path, interrupted_at: InterruptedAt
) -> None:
    with interrupted_at(1):
        run(**recipe("simplecil"), data=str(photos / "2026-01"), increment=2, out=tmp_path)
    (folder,) = (path.parent for path in tmp_path.rglob("run.json"))
    with pytest.raises(InputError, match=r"got interrupted with 1 of 2 experiences done; the comm"):
        go_on(folder, photos / "2026-02", tmp_path / "out")


def test_a_run_that_another_process_writes_to_is_refused(
    parent: Path, photos: Path, tmp_path: Path
) -> None:
    with FileLock(parent / ".lock"), pytest.raises(InputError, match="must not be at work"):
        go_on(parent, photos / "2026-02", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_one_run_is_that_run_and_one_with_several_names_them(
    parent: Path, photos: Path, tmp_path: Path
) -> None:
    child = go_on(parent.parents[2], photos / "2026-02", tmp_path / "one")
    assert RunRecord.read(child).experiences_done == 3
    go_on(child, photos / "2026-03", tmp_path / "one")
    with pytest.raises(InputError, match="must be a run directory, .*; 2 runs lie below: .*seed0-"):
        go_on(tmp_path / "one", photos / "2026-02", tmp_path)


def test_a_damaged_checkpoint_is_refused_before_anything_is_written(
    parent: Path, photos: Path, tmp_path: Path
) -> None:
    path = parent / "checkpoints" / "experience-0001" / "learned.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(InputError, match="must match its checksum"):
            go_on(parent, photos / "2026-02", tmp_path / "out")
    finally:
        path.write_bytes(whole)
    assert not (tmp_path / "out").exists()


def test_a_recipe_without_old_images_needs_the_run_that_it_goes_on_with(photos: Path) -> None:
    part = {"data": str(photos / "2026-02"), "old_test": "none"}
    with pytest.raises(InputError, match="must go with the run that it continues: `cl-adapters"):
        run("simplecil", data=str(photos / "2026-01"), increment=2, continued=[part])


def test_experiences_keep_their_names_and_new_ones_get_that_of_their_folder(
    photos: Path, tmp_path: Path
) -> None:
    groups = '{"pets": ["cat", "dog"], "others": ["bee", "ant"]}'
    values = {**recipe("simplecil"), "data": str(photos / "2026-01"), "experiences": groups}
    (parent,) = run(**values, out=tmp_path)
    child = RunRecord.read(go_on(parent, photos / "2026-02", tmp_path, increment=1))
    assert child.classes == ["cat", "dog", "bee", "ant", "elk", "fox"]
    names = ["pets", "others", "2026-02 1", "2026-02 2"]
    assert [called(child, each) for each in range(4)] == names


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"scenario": "blurry"}, "its images leak"),
        ({"scenario": "repetition"}, "its classes return by chance"),
        ({"scenario": "shift"}, "its changes of pixels"),
        ({"task_free": "mahalanobis"}, "its segments were announced"),
        ({"protocol": "pilot-cifar100-b0inc10"}, "a published setting says all"),
    ],
)
def test_what_has_an_end_of_its_own_cannot_go_on(keys: dict[str, str], reason: str) -> None:
    with pytest.raises(InputError, match=f"must not be continued: {reason}"):
        RunConfig.parse({"strategy": "lae", "continued": [{"data": "month2"}], **keys})


def test_a_method_whose_checkpoints_do_not_hold_all_says_so(photos: Path, tmp_path: Path) -> None:
    values = {**recipe("simplecil"), "strategy": "avalanche:ER_ACE", "options": {"mem_size": 4}}
    (parent,) = run(**values, data=str(photos / "2026-01"), increment=4, out=tmp_path)
    with pytest.raises(InputError, match="'avalanche.ER_ACE' must keep all that it learns"):
        go_on(parent, photos / "2026-02", tmp_path)


def test_the_runs_must_not_lie_in_the_new_images(parent: Path, photos: Path) -> None:
    with pytest.raises(InputError, match="--out must lead outside of the data"):
        go_on(parent, photos / "2026-02", photos / "2026-02" / "runs")


def test_one_recipe_with_parts_is_the_run_that_months_make(
    parent: Path, photos: Path, tmp_path: Path
) -> None:
    child = go_on(parent, photos / "2026-02", tmp_path)
    config = RunRecord.read(child).config
    assert config["continued"] == [{"data": str(photos / "2026-02")}]
    (whole,) = run(**config, out=tmp_path / "whole", cache="off")
    assert whole.name == child.name
    assert RunRecord.read(whole).fingerprint == RunRecord.read(child).fingerprint
    assert (whole / "predictions.parquet").read_bytes() == (
        child / "predictions.parquet"
    ).read_bytes()
