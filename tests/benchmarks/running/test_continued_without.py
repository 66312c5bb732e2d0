"""What a continued run says of images that were left out or come again, and what it can do without.

The images of the first month, or the first month's run, are gone or are not wanted.
"""

import shutil
from pathlib import Path

import pytest

import cl_adapters as cla
from cl_adapters.benchmarks import calibration
from cl_adapters.benchmarks.api import continue_run, run
from cl_adapters.benchmarks.calibration import calibrate
from cl_adapters.benchmarks.exporting import images_to_compare
from cl_adapters.bundle.files import load
from cl_adapters.errors import InputError
from cl_adapters.records.run_record import RunRecord
from cl_adapters.reports.ending import ending_of
from cl_adapters.reports.runs import load_runs
from tests.benchmarks.conftest import InterruptedAt
from tests.benchmarks.months import NAMES, draw, write_months
from tests.benchmarks.running.test_continuing import go_on, recipe


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_months(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def lonely(photos: Path, tmp_path: Path) -> Path:
    """A run on the first month, whose images, `gone`, are gone."""
    month = tmp_path / "gone"
    month.symlink_to(photos / "2026-01", target_is_directory=True)
    values = {**recipe("simplecil"), "data": str(month), "increment": 2}
    (folder,) = run(**values, out=tmp_path / "runs")
    month.unlink()
    return folder


@pytest.fixture
def parent(lonely: Path, photos: Path, tmp_path: Path) -> Path:
    """The same run, and its images are there."""
    (tmp_path / "gone").symlink_to(photos / "2026-01", target_is_directory=True)
    return lonely


def test_a_run_that_failed_says_why_in_place_of_how_to_go_on(
    parent: Path, photos: Path, tmp_path: Path
) -> None:
    record = RunRecord.read(parent)
    record.state, record.experiences_done, record.error = "failed", 1, "too few images"
    record.write(tmp_path)
    with pytest.raises(InputError, match="1 of 2 experiences done, since: too few images$"):
        go_on(tmp_path, photos / "2026-02", tmp_path / "out")


def test_what_the_strategy_refuses_leaves_nothing_behind(photos: Path, tmp_path: Path) -> None:
    data = photos / "2026-01"
    (parent,) = run(**recipe("sema"), data=str(data), increment=4, out=tmp_path / "runs")
    with pytest.raises(InputError, match="must hold at least 10 training images"):
        go_on(parent, photos / "2026-02", tmp_path / "out", increment=1)
    assert not (tmp_path / "out").exists()


def test_images_that_were_there_before_are_counted_and_never_all_that_is_new(
    parent: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for label, first in ((1, 0), (2, 2), (4, 0)):
        for number in range(first, first + 5):
            split = "test" if number >= 5 or (label == 4 and number == 0) else "train"
            draw(tmp_path / "new" / split / NAMES[label] / f"{number}.png", label, number)
    draw(tmp_path / "new" / "test" / NAMES[1] / "50.png", 1, 50)
    continue_run(parent, tmp_path / "new", out=tmp_path / "out", cache="off", quiet=False)
    said = " ".join(capfd.readouterr().err.split())
    assert "8 of these 12 training images of 'new' were learned before" in said
    assert "2 of these 4 test images of 'new' are in the test set already" in said
    with pytest.raises(InputError, match="must not all have been learned before, got 20 images"):
        go_on(parent, photos / "2026-01", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_is_not_evaluated_is_said_wherever_an_accuracy_is(
    lonely: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").symlink_to(photos / "2026-01", target_is_directory=True)
    asked = continue_run(
        lonely, photos / "2026-02", out=tmp_path, cache="off", quiet=False, old_test="none"
    )
    said = " ".join(capfd.readouterr().err.split())
    assert "is evaluated: accuracies are over 2 of 6 classes" in said
    again = continue_run(asked, photos / "2026-03", out=tmp_path, cache="off", quiet=False)
    said = " ".join(capfd.readouterr().err.split())
    assert "is evaluated: accuracies are over 3 of 6 classes" in said, "bee came again"
    (tmp_path / "gone").unlink()
    missing = go_on(lonely, photos / "2026-02", tmp_path / "missing")
    why = {
        asked: "were not evaluated, as --old-test none asked",
        again: "were not evaluated, as --old-test none asked",
        missing: "were no longer there",
    }
    for folder, reason in why.items():
        ending = ending_of([folder])
        tested = 3 if folder == again else 2
        assert f"are over {tested} of 6 classes: no test image of" in ending.sentences[-1]
        (group,) = load_runs([folder]).groups
        (note,) = [each for each in group.notes if "before and after the line" in each]
        assert reason in note


def test_the_card_of_its_model_counts_the_classes_that_were_not_tested(
    lonely: Path, photos: Path, tmp_path: Path
) -> None:
    child = go_on(lonely, photos / "2026-02", tmp_path)
    bundle = cla.export(child, tmp_path / "bundle", rejection=False)
    again = cla.export(bundle, tmp_path / "again", rejection=False)
    for text in ((each / "README.md").read_text("utf-8") for each in (bundle, again)):
        assert "4 of the 6 classes were not tested" in text
        assert "accuracy over the classes that were tested" in text.split("---")[1]
        assert "over all classes" not in text


def test_a_model_without_old_images_is_calibrated_and_compared_as_far_as_images_are_there(
    lonely: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "LEAST", 1)
    child = go_on(lonely, photos / "2026-02", tmp_path)
    again = go_on(child, photos / "2026-03", tmp_path)
    shutil.rmtree(lonely)
    assert [len(images_to_compare(each)) for each in (child, again)] == [4, 8]  # two a class
    rule = "which was continued without its old images, but: .*gone"
    with pytest.raises(InputError, match=rule):
        calibrate(again, load(again))
    (tmp_path / "gone").symlink_to(photos / "2026-01", target_is_directory=True)
    parts = [{"data": str(photos / month)} for month in ("2026-02", "2026-03")]
    values = {**recipe("simplecil"), "data": str(tmp_path / "gone"), "increment": 2}
    (straight,) = run(**values, continued=parts, out=tmp_path / "straight")
    found, expected = (calibrate(each, load(each)).rejection for each in (again, straight))
    assert found is not None
    assert expected is not None
    assert found.held_out.tolist() == expected.held_out.tolist()
    (tmp_path / "gone").unlink()
    (tmp_path / "gone").symlink_to(photos / "2026-03", target_is_directory=True)
    with pytest.raises(InputError, match="but they have changed since|without its old images"):
        calibrate(again, load(again))


def test_a_begun_one_needs_the_run_that_it_continues_no_more(
    parent: Path, photos: Path, tmp_path: Path, interrupted_at: InterruptedAt
) -> None:
    out = tmp_path / "out"
    straight = go_on(parent, photos / "2026-02", tmp_path / "straight", increment=1)
    with interrupted_at(3):
        go_on(parent, photos / "2026-02", out, increment=1)
    shutil.rmtree(parent)
    with pytest.raises(InputError, match="must be a run directory"):
        go_on(parent, photos / "2026-03", out)
    folder = go_on(parent, photos / "2026-02", out, increment=1)
    assert RunRecord.read(folder).state == "finished"
    name = "predictions.parquet"
    assert (folder / name).read_bytes() == (straight / name).read_bytes()
    assert RunRecord.read(folder).parent == RunRecord.read(straight).parent
    assert go_on(parent, photos / "2026-02", out, increment=1) == folder


def test_an_edited_record_of_the_other_run_is_nothing_that_a_restart_mends(
    parent: Path, photos: Path, tmp_path: Path
) -> None:
    path = parent / "run.json"
    path.write_text(path.read_text("utf-8").replace('"seconds"', '"second"'), "utf-8")
    with pytest.raises(InputError) as caught:
        go_on(parent, photos / "2026-02", tmp_path / "out")
    assert "restart" not in str(caught.value)


def test_weights_that_were_moved_are_named_and_must_be_the_same(
    photos: Path, tmp_path: Path
) -> None:
    import timm  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    state = timm.create_model("test_vit").state_dict()
    files = [tmp_path / f"{name}.safetensors" for name in ("here", "there", "other")]
    save_file(state, files[0])
    save_file({name: value + 1 for name, value in state.items()}, files[2])
    values = {**recipe("simplecil"), "image_size": 160, "data": str(photos / "2026-01")}
    network = {"backbone": "test_vit", "weights": str(files[0])}
    (parent,) = run(**values, **network, increment=4, out=tmp_path / "runs")
    files[0].rename(files[1])
    with pytest.raises(InputError, match="there is no such file any more; `--weights`"):
        go_on(parent, photos / "2026-02", tmp_path)
    with pytest.raises(InputError, match="there is no such file any more; `--weights`"):
        load(parent)
    with pytest.raises(InputError, match="weights must be as run"):
        go_on(parent, photos / "2026-02", tmp_path, weights=files[2])
    child = go_on(parent, photos / "2026-02", tmp_path, weights=files[1])
    assert RunRecord.read(child).state == "finished"
