"""Faults planted in small folders and tables: each is found, named, and told what it would do."""

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from cl_adapters.benchmarks.data.inspect_data import Finding, Inspection, inspect_data
from cl_adapters.benchmarks.data.reading import ReadOptions
from cl_adapters.benchmarks.data.sources import open_source
from cl_adapters.benchmarks.data.stores import FORMATS
from cl_adapters.cli import app
from cl_adapters.errors import InputError


def picture(seed: int, height: int = 12, width: int = 10) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two sound classes: six images to learn from and three to test on each."""
    root = tmp_path / "photos"
    for place, name in enumerate(("cat", "dog")):
        for split, count in (("train", 6), ("test", 3)):
            for number in range(count):
                seed = 1000 * place + 100 * (split == "test") + number
                write(root / split / name / f"{number}.png", picture(seed))
    return root


def found(inspection: Inspection, text: str) -> Finding:
    (finding,) = [each for each in inspection.findings if text in each.what]
    return finding


def test_sound_images_have_no_finding(photos: Path) -> None:
    inspection = inspect_data(photos)
    assert inspection.findings == ()
    assert inspection.is_good
    assert inspection.summary() == [
        ["what", "found"],
        ["classes", "2"],
        ["images", "12 train, 6 test"],
        ["images a class", "9"],
        ["width", "10"],
        ["height", "12"],
        ["modes", "18 RGB"],
        ["layout", "train in 'train', test in 'test'"],
    ]
    assert inspection.class_table() == [
        ["class", "train", "test"], ["cat", "6", "3"], ["dog", "6", "3"],
    ]  # fmt: skip


def test_a_copy_across_the_sets_is_found_by_pixels(photos: Path) -> None:
    """Under another name and in another lossless format, with other bytes."""
    write(photos / "test" / "cat" / "other.bmp", picture(3))
    inspection = inspect_data(photos)
    finding = found(inspection, "both in train and in test")
    assert finding.level == "distorts"
    assert finding.what == "1 image both in train and in test, by pixels"
    assert finding.examples == ("train/cat/3.png = test/cat/other.bmp",)
    assert "too high" in finding.action
    assert len(inspection.findings) == 1


def test_the_same_pixels_in_another_shape_are_no_copy(photos: Path) -> None:
    flat = np.array(picture(3)).reshape(10, 12, 3)
    write(photos / "test" / "cat" / "other.png", Image.fromarray(flat))
    assert inspect_data(photos).findings == ()


def test_an_image_in_two_classes_and_a_copy_in_one_place(photos: Path) -> None:
    write(photos / "train" / "dog" / "torn.png", picture(3))
    write(photos / "test" / "dog" / "twice.png", picture(1102))
    inspection = inspect_data(photos)
    torn, twice = found(inspection, "more than one class"), found(inspection, "copy in the same")
    assert (torn.level, torn.examples) == ("distorts", ("train/cat/3.png = train/dog/torn.png",))
    assert (twice.level, twice.examples) == ("note", ("test/dog/2.png = test/dog/twice.png",))


def test_damaged_files_are_all_named(photos: Path) -> None:
    for number in range(5):
        path = photos / "train" / "cat" / f"broken {number}.jpg"
        path.write_bytes(b"\xff\xd8\xff rubbish")
    (photos / "test" / "dog" / "short.png").write_bytes(encode(picture(9))[:200])
    inspection = inspect_data(photos)
    finding = found(inspection, "unreadable image")
    assert finding.level == "stops"
    assert finding.what == "6 unreadable images"
    why = f"must be a {', '.join(FORMATS)} file, is none"
    names = [f"train/cat/broken {number}.jpg ({why})" for number in range(3)]
    assert finding.row()[2] == f"{', '.join(names)} and 3 more"
    assert finding.examples[-1].startswith("test/dog/short.png (must be readable, got: ")
    assert inspection.findings[0] is finding, "the worst comes first"
    assert inspection.summary()[2] == ["images", "17 train, 7 test"]
    assert inspection.summary()[6] == ["modes", "18 RGB"]


def test_empty_and_one_sided_classes_stop_a_run(photos: Path) -> None:
    (photos / "train" / "empty").mkdir()
    for number in range(6):
        write(photos / "train" / "new" / f"{number}.png", picture(50 + number))
    inspection = inspect_data(photos)
    assert found(inspection, "empty class").examples == ("empty",)
    assert found(inspection, "without test images").examples == ("new",)
    assert {finding.level for finding in inspection.findings} == {"stops"}
    with pytest.raises(InputError) as refusal:
        open_source(photos)
    assert found(inspection, "not usable").examples == (str(refusal.value),)


def test_an_empty_class_does_not_hide_what_a_run_says_first(photos: Path) -> None:
    (photos / "train" / "empty").mkdir()
    write(photos / "Training" / "cat" / "0.png", picture(50))
    (finding,) = inspect_data(photos).findings
    (sentence,) = finding.examples
    assert "must hold one train folder, got 'Training', 'train'" in sentence


def test_tiny_classes_distort(photos: Path) -> None:
    for number in range(4):
        write(photos / "train" / "rare" / f"{number}.png", picture(50 + number))
    write(photos / "test" / "rare" / "0.png", picture(60))
    inspection = inspect_data(photos)
    assert found(inspection, "fewer than 5 train").examples == ("rare (4)",)
    assert found(inspection, "fewer than 2 test").examples == ("rare (1)",)
    assert not inspection.is_good


def test_what_a_run_changes_about_images_is_noted(photos: Path) -> None:
    folder = photos / "train" / "cat"
    write(folder / "grey.png", picture(50).convert("L"))
    write(folder / "clear.png", picture(51).convert("RGBA"))
    write(folder / "small.png", picture(52, height=7, width=9))
    write(folder / "long.png", picture(53, height=10, width=161))
    inspection = inspect_data(photos)
    assert [(each.level, each.examples) for each in inspection.findings] == [
        ("note", ("train/cat/small.png",)),
        ("note", ("train/cat/long.png",)),
        ("note", ("train/cat/grey.png",)),
        ("note", ("train/cat/clear.png",)),
    ]
    assert inspection.is_good
    assert inspection.summary()[4] == ["width", "9 to 161, median 10"]


def test_files_that_are_passed_over_are_named(photos: Path) -> None:
    (photos / "train" / "cat" / "phone.HEIC").write_bytes(b"photo")
    (photos / "notes.txt").write_text("hello", "utf-8")
    inspection = inspect_data(photos)
    phone, notes = found(inspection, "kind that is not read"), found(inspection, "by the name")
    assert (phone.level, phone.examples) == ("distorts", ("train/cat/phone.HEIC",))
    assert (notes.level, notes.examples) == ("note", ("notes.txt",))


def test_images_that_are_passed_over_are_named(photos: Path, tmp_path: Path) -> None:
    write(photos / "train" / "loose.png", picture(50))
    write(photos / "train" / "cat" / "below" / "read.png", picture(51))
    write(photos / "train" / ".trash" / "old.png", picture(52))
    write(tmp_path / "elsewhere.png", picture(53))
    (photos / "train" / "dog" / "link.png").symlink_to(tmp_path / "elsewhere.png")
    (photos / "train" / "dog" / "gone.png").symlink_to(tmp_path / "gone.png")
    (photos / "train" / "loop").symlink_to(photos / "train")
    inspection = inspect_data(photos)
    beside, broken = found(inspection, "beside the class"), found(inspection, "leads nowhere")
    assert (beside.level, beside.examples) == ("distorts", ("train/loose.png",))
    assert (broken.level, broken.examples) == ("distorts", ("train/dog/gone.png",))
    assert found(inspection, "hidden").examples == ("train/.trash/old.png",)
    assert found(inspection, "read already").examples == ("train/loop",)
    source = open_source(photos)
    assert {source.train.name(index) for index in range(len(source.train))} == {
        repr(str(photos / look.name)) for look in inspection.looks if look.split == "train"
    }
    left = [each for each in inspection.findings if "left out" in each.what]
    told = sum(source.reading.counts().values())
    assert sum(len(each.examples) for each in left) == told == 4


def test_a_layout_that_is_no_other_is_told(photos: Path) -> None:
    (photos / "train").rename(photos / "Training")
    (photos / "test").rename(photos / "seg_test")
    write(photos / "valid" / "cat" / "0.png", picture(50))
    inspection = inspect_data(photos)
    assert inspection.summary()[-1] == [
        "layout", "train in 'Training', test in 'seg_test'; 'valid' beside them is not used (`test_set` chooses)",
    ]  # fmt: skip
    assert found(inspection, "another split").level == "note"
    assert inspection.summary()[2] == ["images", "12 train, 6 test"]
    assert inspection.is_good


def test_folders_in_class_folders_stop_a_run_with_the_right_reading(tmp_path: Path) -> None:
    for number in range(8):
        write(tmp_path / "a" / "airfield" / f"{number}.png", picture(number))
        write(tmp_path / "b" / "barn" / f"{number}.png", picture(100 + number))
    finding = found(inspect_data(tmp_path), "not usable")
    assert finding.level == "stops"
    assert "class_depth 2 takes these for the classes" in finding.examples[0]
    inspection = inspect_data(tmp_path, options=ReadOptions(class_depth=2))
    assert inspection.classes == ("a/airfield", "b/barn")
    assert inspection.is_good


def test_a_folder_without_a_split_is_seen_as_the_run_would_split_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(8):
            write(tmp_path / name / f"{number}.png", picture(100 * ord(name) + number))
    inspection = inspect_data(tmp_path)
    source = open_source(tmp_path)
    for split, images in (("train", source.train), ("test", source.test)):
        names = {look.name for look in inspection.looks if look.split == split}
        expected = {images.name(index).strip("'") for index in range(len(images))}
        assert {str(tmp_path / name) for name in names} == expected
    assert inspection.is_good


def test_a_class_of_one_image_cannot_be_split(tmp_path: Path) -> None:
    for number in range(8):
        write(tmp_path / "a" / f"{number}.png", picture(number))
    write(tmp_path / "b" / "0.png", picture(50))
    inspection = inspect_data(tmp_path)
    assert "must have at least two images" in found(inspection, "not usable").examples[0]
    assert len(inspection.looks) == 9, "the images are looked at all the same"
    (tmp_path / "c").mkdir()
    assert found(inspect_data(tmp_path), "class of one image").examples == ("b",)


def table(path: Path, images: list[bytes], labels: list[str], splits: list[str] | None) -> Path:
    columns: dict[str, Any] = {"image": images, "label": labels}
    pq.write_table(pa.table(columns | ({"split": splits} if splits else {})), path)
    return path


def test_a_parquet_file_is_inspected_alike(tmp_path: Path) -> None:
    images = [encode(picture(number)) for number in range(18)]
    images[17] = encode(picture(2), "BMP")
    images[4] = b"nothing"
    labels = ["cat", "dog"] * 9
    splits = ["train"] * 12 + ["test"] * 6
    path = table(tmp_path / "pefts.parquet", images, labels, splits)
    inspection = inspect_data(path)
    assert inspection.summary()[2] == ["images", "12 train, 6 test"]
    (example,) = found(inspection, "unreadable image").examples
    assert example.startswith("row 4 (must be a JPEG, ")
    assert found(inspection, "both in train and in test").examples == ("row 2 = row 17",)
    assert found(inspection, "more than one class").examples == ("row 2 = row 17",)


def test_a_table_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    path = table(tmp_path / "pefts.parquet", [encode(picture(0))], ["cat"], ["train"])
    (finding,) = inspect_data(path).findings
    assert finding.level == "stops"
    assert "must have at least one test image, got 0" in finding.examples[0]


def test_a_built_in_stream_may_be_inspected() -> None:
    inspection = inspect_data(Path("digits"))
    assert inspection.summary()[1:3] == [["classes", "10"], ["images", "1,347 train, 450 test"]]


@pytest.mark.parametrize("name", ["nowhere/at/all", "file.txt"])
def test_what_is_no_data_is_refused(tmp_path: Path, name: str) -> None:
    if name == "file.txt":
        (tmp_path / name).write_text("hello", "utf-8")
        (finding,) = inspect_data(tmp_path / name).findings
        assert finding.level == "stops"
        return
    with pytest.raises(InputError, match="that exists"):
        inspect_data(tmp_path / name)


def test_many_classes_are_shown_by_the_smallest(tmp_path: Path) -> None:
    for label in range(40):
        for number in range(2 + (label != 33)):
            write(tmp_path / f"class {label}" / f"{number}.png", picture(100 * label + number))
    rows = inspect_data(tmp_path).class_table()
    assert len(rows) == 31
    assert rows[0][0] == "class (the smallest; 10 more)"
    assert rows[1][0] == "class 33"


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", "inspect", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_command_ends_in_0_1_and_2(photos: Path) -> None:
    code, text = call(photos)
    assert code == 0, text
    assert "nothing here would stop a run" in text
    write(photos / "test" / "cat" / "copy [red].png", picture(3))
    code, text = call(photos)
    assert code == 1
    assert "copy [red].png" in text
    assert "distorts" in text
    assert call(photos / "nowhere")[0] == 2


def test_names_with_escape_codes_are_made_harmless(photos: Path) -> None:
    write(photos / "test" / "cat" / "\x1b[31mcopy\u202e.png", picture(3))
    code, text = call(photos)
    assert code == 1
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[31mcopy\\u202e.png" in text


def test_the_command_takes_the_options_of_a_run(tmp_path: Path) -> None:
    for number in range(8):
        write(tmp_path / "a" / "airfield" / f"{number}.png", picture(number))
        write(tmp_path / "b" / "barn" / f"{number}.png", picture(100 + number))
    code, text = call(tmp_path)
    assert code == 1
    assert "got 1 folder ('airfield')" in text.replace("\n", " ")
    code, text = call(tmp_path, "--class-depth", 2)
    assert code == 0
    assert "classes 2 folders down" in text
    assert call(tmp_path, "--max-megapixels", "inf")[0] == 2
    code, text = call(tmp_path, "--class-depth", 2, "--max-megapixels", 0.0001)
    assert code == 1
    assert "more than the limit of 100" in text


def test_what_decoding_did_is_noted(photos: Path) -> None:
    write(photos / "train" / "cat" / "print.tif", picture(50).convert("CMYK"))
    finding = found(inspect_data(photos), "CMYK")
    assert (finding.level, finding.what) == ("note", "1 image in CMYK")
    assert finding.action == "turned into RGB as Pillow does"


def test_a_thousand_images_take_seconds(tmp_path: Path) -> None:
    data = [encode(picture(number, 64, 64), "JPEG") for number in range(50)]
    for label in range(2):
        folder = tmp_path / str(label)
        folder.mkdir()
        for number in range(500):
            (folder / f"{number}.jpg").write_bytes(data[number % 50])
    before = time.process_time()
    inspect_data(tmp_path)
    assert time.process_time() - before < 10
