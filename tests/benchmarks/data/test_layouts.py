"""Folders as people unpack them: read as what they are, or refused with the right reading."""

import os
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from cl_adapters.benchmarks.data.folders import folder_source
from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.reading import ReadOptions
from cl_adapters.benchmarks.data.sources import open_source
from cl_adapters.errors import InputError

CLASSES = ("ant", "bee", "cat")
_values = iter(range(10**9))


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    value = next(_values)
    Image.new("RGB", (2, 2), (value % 256, value // 256 % 256, value // 65536)).save(path)


def classes(root: Path, images: int = 4, names: tuple[str, ...] = CLASSES) -> Path:
    for name in names:
        for number in range(images):
            save(root / name / f"{number}.png")
    return root


def sizes(source: ImageSource) -> tuple[int, int]:
    return len(source.train), len(source.test)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Training", "Testing"),
        ("Training", "Test"),
        ("TRAIN", "TEST"),
        ("Train", "Val"),
        ("trn", "tst"),
        ("train", "valid"),
        ("training", "validation"),
        ("seg_train", "seg_test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train_set", "test_set"),
        ("TrainSet", "TestSet"),
        ("training_data", "evaluation data"),
        ("train-images", "test-images"),
        ("ILSVRC2012_img_train", "ILSVRC2012_img_val"),
        ("train2017", "val2017"),
        ("asl_alphabet_train/asl_alphabet_train", "asl_alphabet_test/asl_alphabet_test"),
        ("fruits-360/Training", "fruits-360/Test"),
        ("a/b/train", "a/b/test"),
    ],
)
def test_splits_are_known_by_any_common_name(tmp_path: Path, train: str, test: str) -> None:
    classes(tmp_path / train, 4)
    classes(tmp_path / test, 2)
    source = folder_source(tmp_path)
    assert source.classes == CLASSES
    assert sizes(source) == (12, 6)
    assert source.train.name(0) == repr(str(tmp_path / train / "ant" / "0.png"))
    assert source.reading.layout == f"train in {train!r}, test in {test!r}"
    assert source.reading.left_out == ()


@pytest.mark.parametrize("name", ["valid", "val", "Validation", "dev"])
def test_validation_beside_test_is_left_out_and_counted(tmp_path: Path, name: str) -> None:
    classes(tmp_path / "train", 4)
    classes(tmp_path / "test", 2)
    classes(tmp_path / name, 1)
    source = folder_source(tmp_path)
    assert source.classes == CLASSES
    assert sizes(source) == (12, 6)
    assert source.reading.layout.endswith(
        f"; {name!r} beside them is not used (`test_set` chooses)"
    )
    assert source.reading.counts() == {"an image of another split": 3}


def test_a_test_set_without_labels_gives_way_to_validation(tmp_path: Path) -> None:
    classes(tmp_path / "train", 4)
    classes(tmp_path / "valid", 2)
    for number in range(5):
        save(tmp_path / "test" / f"{number}.png")
    source = folder_source(tmp_path)
    assert sizes(source) == (12, 6)
    assert source.reading.layout == (
        "train in 'train', test in 'valid'; 'test' beside them is not used (`test_set` chooses)"
    )
    assert source.reading.counts() == {"an image of another split": 5}


@pytest.mark.parametrize("above", ["Images", "archive/Images", "dataset"])
def test_a_folder_around_the_classes_is_looked_into(tmp_path: Path, above: str) -> None:
    classes(tmp_path / above, 4)
    save(tmp_path / "cover.png")
    (tmp_path / "cover.png").rename(tmp_path / "README.md")
    source = folder_source(tmp_path)
    assert source.classes == CLASSES
    assert source.reading.layout == f"class folders in {above!r}, split by content"
    assert source.reading.counts() == {"no image by the name": 1}


@pytest.mark.parametrize(
    "names", [("train", "plane"), ("test tube", "train station"), ("val", "x")]
)
def test_classes_may_have_the_names_of_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert set(folder_source(classes(tmp_path, names=names)).classes) == set(names)


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    classes(tmp_path / "train")
    classes(tmp_path / "test")
    classes(tmp_path / "Training")
    with pytest.raises(InputError, match="must hold one train folder, got 'Training', 'train'"):
        folder_source(tmp_path)


def test_folders_in_a_class_folder_are_refused_with_the_readings(tmp_path: Path) -> None:
    classes(tmp_path / "a", names=("airfield", "alley"))
    classes(tmp_path / "b", names=("barn",))
    with pytest.raises(InputError, match=r"2 folders \('airfield', 'alley'\): class_depth 2 .* 1 "):
        folder_source(tmp_path)
    two = folder_source(tmp_path, options=ReadOptions(class_depth=2))
    assert two.classes == ("a/airfield", "a/alley", "b/barn")
    assert sizes(two) == (9, 3)
    assert two.reading.layout == "class folders, classes 2 folders down, split by content"
    one = folder_source(tmp_path, options=ReadOptions(class_depth=1))
    assert one.classes == ("a", "b")
    assert sizes(one) == (9, 3)


def test_super_classes_may_lie_below_splits(tmp_path: Path) -> None:
    for split, images in (("Training", 3), ("Testing", 1)):
        classes(tmp_path / split / "insect", images, ("ant", "bee"))
        classes(tmp_path / split / "mammal", images, ("cat",))
    save(tmp_path / "Training" / "mammal" / "loose.png")
    source = folder_source(tmp_path, options=ReadOptions(class_depth=2))
    assert source.classes == ("insect/ant", "insect/bee", "mammal/cat")
    assert sizes(source) == (9, 3)
    assert source.reading.counts() == {"an image beside the class folders": 1}


def test_splits_inside_classes_are_refused_with_the_reading(tmp_path: Path) -> None:
    for name in CLASSES:
        classes(tmp_path / name, names=("train", "test"))
    with pytest.raises(InputError, match="got the splits 'test', 'train'; put the classes into"):
        folder_source(tmp_path)


def test_a_validation_set_beside_a_test_set_can_be_chosen(tmp_path: Path) -> None:
    for number, name in enumerate(("Training", "valid", "Testing"), start=2):
        classes(tmp_path / name, number)
    chosen = folder_source(tmp_path, options=ReadOptions(test_set="validation"))
    assert (len(chosen.train), len(chosen.test)) == (2 * len(CLASSES), 3 * len(CLASSES))
    assert chosen.reading.layout == (
        "train in 'Training', test in 'valid'; 'Testing' beside them is not used "
        "(`test_set` chooses)"
    )
    assert sum(chosen.reading.counts().values()) == 4 * len(CLASSES)
    usual = folder_source(tmp_path, options=ReadOptions(test_set="test"))
    assert len(usual.test) == 4 * len(CLASSES)


def test_a_set_that_is_not_there_cannot_be_chosen(tmp_path: Path) -> None:
    classes(tmp_path / "split" / "train", 2)
    classes(tmp_path / "split" / "test", 2)
    with pytest.raises(InputError, match="must hold the validation folder that `test_set` names"):
        folder_source(tmp_path / "split", options=ReadOptions(test_set="validation"))
    classes(tmp_path / "whole", 4)
    with pytest.raises(InputError, match="`test_set` must go with other data"):
        folder_source(tmp_path / "whole", options=ReadOptions(test_set="validation"))


def test_images_without_class_folders_are_told_about_tables(tmp_path: Path) -> None:
    save(tmp_path / "0.png")
    with pytest.raises(InputError, match=r"class folders, got none; images .* give a \.csv file"):
        folder_source(tmp_path)


def test_every_file_that_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    classes(tmp_path, 4)
    (tmp_path / "notes.txt").write_text("x", "utf-8")
    (tmp_path / ".DS_Store").write_text("x", "utf-8")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    save(tmp_path / "__MACOSX" / "ant" / "x.png")
    save(tmp_path / "__MACOSX" / "ant" / "._0.png")
    save(tmp_path / "ant" / ".thumbs" / "0.png")
    save(tmp_path / "loose.png")
    (tmp_path / "ant" / "phone.HEIC").write_bytes(b"x")
    (tmp_path / "ant" / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "bee" / "pipe.png")
    source = folder_source(tmp_path)
    assert source.classes == CLASSES
    assert sizes(source) == (9, 3)
    assert source.reading.counts() == {
        "left by a program (__MACOSX and the like)": 2,
        "hidden": 2,
        "no image by the name": 1,
        "an image beside the class folders": 1,
        "an image of a kind that is not read": 1,
        "a link that leads nowhere": 1,
        "neither file nor folder": 1,
    }
    total = sum(len(files) for _, _, files in os.walk(tmp_path))
    assert sum(sizes(source)) + len(source.reading.left_out) == total


def test_links_are_followed_to_files_and_folders_alike(tmp_path: Path) -> None:
    store, root = classes(tmp_path / "store", 4), tmp_path / "root"
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for number in range(4):
            (root / name / f"{number}.png").symlink_to(store / name / f"{number}.png")
    (root / "linked").symlink_to(classes(tmp_path / "other", names=("dog",)) / "dog")
    classes(tmp_path / "more", 2, names=("inner",))
    (root / "cat" / "more").symlink_to(tmp_path / "more" / "inner")
    source = folder_source(root)
    assert source.classes == (*CLASSES, "linked")
    assert sum(sizes(source)) == 3 * 4 + 4 + 2
    assert source.reading.left_out == ()


def test_linked_splits_and_a_linked_folder_are_followed(tmp_path: Path) -> None:
    classes(tmp_path / "one", 4)
    classes(tmp_path / "two", 2)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "train").symlink_to(tmp_path / "one")
    (tmp_path / "root" / "test").symlink_to(tmp_path / "two")
    (tmp_path / "link").symlink_to(tmp_path / "root")
    assert sizes(folder_source(tmp_path / "link")) == (12, 6)


def test_links_to_nothing_are_no_empty_folder(tmp_path: Path) -> None:
    classes(tmp_path, 4)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "0.png").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"dog' must hold images .*, got 1 file left out: a link"):
        folder_source(tmp_path)


def test_loops_of_links_end(tmp_path: Path) -> None:
    classes(tmp_path / "root", 4)
    root = tmp_path / "root"
    (root / "up").symlink_to(root)
    (root / "ant" / "up").symlink_to(root)
    (root / "ant" / "self").symlink_to(root / "ant")
    (root / "ant" / "self.png").symlink_to(root / "ant" / "self.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "back").symlink_to(root / "bee")
    (root / "bee" / "out").symlink_to(tmp_path / "out")
    for number in range(12):  # each holds two links to the next: 4,096 ways to the last
        folder = tmp_path / f"web{number}"
        folder.mkdir()
        for side in ("left", "right"):
            (folder / side).symlink_to(tmp_path / f"web{number + 1}")
    save(tmp_path / "web12" / "x.png")
    (root / "cat" / "web").symlink_to(tmp_path / "web0")
    before = time.process_time()
    source = folder_source(root)
    assert time.process_time() - before < 2
    assert source.classes == CLASSES
    assert sum(sizes(source)) == 13
    assert Counter(each.reason for each in source.reading.left_out) == {
        "a link to a folder that is read already": 4 + 12,
        "a link that leads nowhere": 1,
    }


def test_class_names_are_compared_as_they_look(tmp_path: Path) -> None:
    composed, decomposed = "cr\u00e8me", "cre\u0300me"
    classes(tmp_path / "train", 2, (composed, "x"))
    classes(tmp_path / "test", 1, (decomposed, "x"))
    source = open_source(tmp_path)
    assert source.classes == (composed, "x")
    assert sizes(source) == (4, 2)
    assert decomposed in source.test.name(0)
