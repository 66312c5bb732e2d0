"""A quick look takes fewer classes and images, and everything that comes of it says so."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.quick_look import quick_look
from cl_adapters.benchmarks.data.sources import array_source
from cl_adapters.benchmarks.running.opening import open_images
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.sweeps.retries import Workers, _prepared
from cl_adapters.cli import app
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.records.tables import read_predictions

TINY = ["--backbone", "test_vit", "--weights", "random", "--image-size", "32"]


def numbered(counts: list[int]) -> ImageSource:
    """Returns a source whose image i has the value i: classes in turns, as many as `counts`."""
    left, targets = list(counts), []
    while any(left):
        for label, count in enumerate(left):
            if count:
                targets.append(label)
                left[label] -= 1
    images = np.zeros((len(targets), 4, 4), dtype=np.uint8)
    images += np.arange(len(targets), dtype=np.uint8)[:, None, None]
    split = (images, np.array(targets))
    return array_source("numbered", split, split)


def values(source: ImageSource) -> list[tuple[int, int]]:
    """Returns class and value of each training image."""
    train = source.train
    return [(int(train.targets[i]), int(train.read(i)[0, 0, 0])) for i in range(len(train))]


def test_the_first_classes_stay_with_all_their_images() -> None:
    source = numbered([3, 5, 2])
    found = quick_look(source, max_classes=2)
    assert found.classes == source.classes[:2] == found.train.classes == found.test.classes
    assert values(found) == [pair for pair in values(source) if pair[0] < 2]


def test_images_of_a_class_are_spread_from_first_to_last() -> None:
    source = numbered([9, 2, 4])
    found = values(quick_look(source, max_images=3))
    for label, picks in ((0, [0, 4, 8]), (1, [0, 1]), (2, [0, 2, 3])):
        every = [value for target, value in values(source) if target == label]
        assert [value for target, value in found if target == label] == [every[i] for i in picks]
    assert [value for _, value in found] == sorted(value for _, value in found), "order is kept"


@pytest.mark.parametrize("most", [1, 2, 3, 7, 19, 20, 21])
def test_never_more_and_never_fewer_than_there_are(most: int) -> None:
    counts = [20, 7, 1]
    found = quick_look(numbered(counts), max_images=most)
    assert [int((found.test.targets == label).sum()) for label in range(3)] == [
        min(most, count) for count in counts
    ]
    assert len(set(found.train.rows.tolist())) == len(found.train)


def test_without_a_limit_all_is_as_it_was() -> None:
    source = numbered([2, 2])
    assert quick_look(source) is source


def open_digits(**keys: object) -> ImageSource:
    return open_images(RunConfig.parse({"strategy": "simplecil", **keys}))


def test_all_seeds_see_the_same_images_and_a_part_of_those_is_held_out() -> None:
    limits = {"max_classes": 4, "max_images_per_class": 6}
    one, two = (open_digits(seed=seed, **limits) for seed in (0, 1))
    assert one.train.checksum() == two.train.checksum()
    assert len(one.train) == len(one.test) == 24
    held = open_digits(validation=0.5, **limits)
    assert (len(held.train), len(held.test)) == (12, 12)
    assert set(held.test.digests) < set(one.train.digests)
    said = "4 of 10 classes, 24 of 1,347 train images"
    assert held.reading.quick_look == said, "the test images are not looked at"
    assert one.reading.quick_look == f"{said}, 24 of 450 test images"


def test_a_sweep_does_not_take_one_look_for_the_other() -> None:
    small, large = (
        RunConfig.parse({"strategy": "simplecil", "backbone": "test_vit", "weights": "random", "image_size": 32, "max_images_per_class": most})
        for most in (2, 3)
    )  # fmt: skip
    workers = Workers(cache="off")
    sizes = [
        len(_prepared(each, workers, is_verified=False).source.train) for each in (small, large)
    ]
    assert sizes == [20, 30]


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_recipe_fingerprint_report_and_listing_say_that_it_is_one(tmp_path: Path) -> None:
    out = str(tmp_path / "runs")
    look = ["--max-classes", "4", "--max-images-per-class", "5"]
    printed = call("run", "--strategy", "simplecil", *TINY, *look, "--out", out)
    whole = call("run", "--strategy", "simplecil", *TINY, "--out", out)
    said = "quick look: 4 of 10 classes, 20 of "
    assert said in printed
    assert "quick look" not in whole
    by_stream = {RunRecord.read(each).stream: each for each in find_runs([tmp_path / "runs"])}
    assert set(by_stream) == {"digits", "digits-quick_look"}
    record = RunRecord.read(by_stream["digits-quick_look"])
    limits = {"max_classes": 4, "max_images_per_class": 5}
    assert limits.items() <= record.config.items()
    assert record.fingerprint["quick_look"] == limits
    assert RunConfig.parse(record.config).max_images_per_class == 5
    rows = read_predictions(by_stream["digits-quick_look"])
    assert len(rows[rows["experience"] == 1]) == 20, "5 test images of 4 classes"
    other = RunRecord.read(by_stream["digits"])
    assert "quick_look" not in other.fingerprint
    assert not limits.keys() & other.config.keys()

    listed = call("list", "runs", "--out", out).splitlines()
    assert [line.split()[0] for line in listed if "finished, quick look" in line] == [
        str(by_stream["digits-quick_look"])
    ]
    call("report", out, "--out", str(tmp_path / "report"), "--formats", "svg")
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert page.count(said) == 1, "of the one group"


def test_a_limit_of_none_is_refused_and_a_protocol_has_no_part(tmp_path: Path) -> None:
    for options, message in (
        (["--max-classes", "0"], "recipe key `max_classes`"),
        (["--max-images-per-class", "0"], "recipe key `max_images_per_class`"),
        (
            ["--protocol", "sema-vtab-b0inc10", "--max-classes", "20", "--data", str(tmp_path)],
            "`max_classes` must not be given under protocol",
        ),
    ):
        result = CliRunner().invoke(app, ["run", "--strategy", "simplecil", *options])
        assert result.exit_code == 2
        assert message in result.output
