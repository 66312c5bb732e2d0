import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl_adapters.benchmarks.data.reading import ReadOptions
from cl_adapters.benchmarks.data.sources import (
    array_source,
    digits_source,
    folder_source,
    in_text_order,
    open_source,
)
from cl_adapters.benchmarks.data.verifying import verify_images
from cl_adapters.errors import InputError

DATA = Path(__file__).parents[4] / "shared" / "data"


def save(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (value, value, value)).save(path)


def make_split(root: Path, classes: tuple[str, ...] = ("2", "10", "b"), images: int = 2) -> Path:
    for split in ("train", "test"):
        for label, name in enumerate(classes):
            for number in range(images):
                save(root / split / name / f"{number}.png", 10 * label + number)
    return root


def make_classes(root: Path, classes: tuple[str, ...] = ("a", "b"), images: int = 8) -> Path:
    for label, name in enumerate(classes):
        for number in range(images):
            save(root / name / f"{number}.png", 20 * label + number)
    return root


def test_digits_are_split_once_and_for_all() -> None:
    first, second = digits_source(), digits_source()
    assert first.describe() == second.describe()
    assert first.train.checksum() != digits_source(1).train.checksum()
    assert len(first.train) + len(first.test) == 1797
    assert not set(first.train.rows) & set(first.test.rows)
    shares = np.bincount(first.test.targets) / np.bincount(
        np.concatenate([first.train.targets, first.test.targets])
    )
    np.testing.assert_allclose(shares, 0.25, atol=0.003)
    assert max(first.train.read(index).max() for index in range(50)) == 255


def test_a_split_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    source = folder_source(make_split(tmp_path / "photos"))
    assert source.name == "photos"
    assert source.classes == ("2", "10", "b")
    assert source.train.targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert source.test.read(3).tolist() == [[[11, 11, 11]] * 4] * 3
    assert source.test.name(3) == repr(str(tmp_path / "photos" / "test" / "10" / "1.png"))
    verify_images(source)


@pytest.mark.parametrize("folder", ["val", "validation"])
def test_validation_images_serve_as_test(tmp_path: Path, folder: str) -> None:
    make_split(tmp_path)
    (tmp_path / "test").rename(tmp_path / folder)
    assert len(folder_source(tmp_path).test) == 6


def test_one_folder_is_split_by_content(tmp_path: Path) -> None:
    source = folder_source(make_classes(tmp_path / "one"))
    assert (len(source.train), len(source.test)) == (12, 4)
    assert set(np.bincount(source.test.targets)) == {2}
    renamed = make_classes(tmp_path / "two")
    for path in sorted(renamed.rglob("*.png")):
        path.rename(path.with_name(f"z{9 - int(path.stem)}.png"))
    assert folder_source(renamed).describe() == source.describe()
    assert len(folder_source(renamed, test_share=0.5).test) == 8


def test_the_split_of_a_folder_does_not_leak(tmp_path: Path) -> None:
    source = folder_source(make_classes(tmp_path))
    assert not set(source.train.digests) & set(source.test.digests)


def test_what_is_no_image_is_left_aside(tmp_path: Path) -> None:
    make_split(tmp_path)
    save(tmp_path / "train" / "b" / "deeper" / "UPPER.JPG")
    save(tmp_path / "train" / "b" / ".hidden.png")
    save(tmp_path / "train" / ".cache" / "x.png")
    save(tmp_path / "train" / "b" / ".thumbs" / "x.png")
    (tmp_path / "train" / "b" / "notes.txt").write_text("x")
    (tmp_path / "train" / "readme.md").write_text("x")
    (tmp_path / "train" / "b" / "folder.png").mkdir()
    source = folder_source(tmp_path)
    assert source.classes == ("2", "10", "b")
    assert len(source.train) == 7
    assert "deeper" in source.train.name(6)


def test_a_linked_root_is_followed(tmp_path: Path) -> None:
    make_split(tmp_path / "root")
    (tmp_path / "link").symlink_to(tmp_path / "root")
    assert len(folder_source(tmp_path / "link").train) == 6


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"image folder '.*none' must exist and be a directory"):
        folder_source(tmp_path / "none")
    with pytest.raises(InputError, match=r"image folder .* must hold class folders, got none"):
        folder_source(tmp_path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_half_a_split_is_not_taken_for_a_class(tmp_path: Path, split: str) -> None:
    make_split(tmp_path)
    (tmp_path / ("test" if split == "train" else "train")).rename(tmp_path / "other")
    with pytest.raises(InputError, match=rf"must hold train/ and one of .*, got {split}$"):
        folder_source(tmp_path)


def test_split_folders_without_classes_are_refused(tmp_path: Path) -> None:
    make_classes(tmp_path, classes=("train", "test"))
    with pytest.raises(InputError, match=r"image folder '.*train' must hold class folders"):
        folder_source(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    make_classes(tmp_path, classes=("plane", "train"))
    assert folder_source(tmp_path).classes == ("plane", "train")


@pytest.mark.parametrize(("split", "other"), [("train", "test"), ("test", "train")])
def test_a_class_folder_on_one_side_only_is_named(tmp_path: Path, split: str, other: str) -> None:
    make_split(tmp_path)
    save(tmp_path / split / "extra" / "0.png")
    with pytest.raises(InputError, match=rf"class 'extra' of .* got one in {split} only"):
        folder_source(tmp_path)
    (tmp_path / other / "extra").mkdir()
    with pytest.raises(
        InputError, match=r"class folder '.*extra' must hold images \(\.bmp .* none"
    ):
        folder_source(tmp_path)


def test_a_class_of_one_photo_is_named(tmp_path: Path) -> None:
    save(make_classes(tmp_path) / "lonely" / "0.png")
    with pytest.raises(InputError, match=r"class 'lonely' must have at least two images"):
        folder_source(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="needs bytes as file names")
def test_a_folder_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    make_split(tmp_path, classes=("a", "b\udcff"))
    with pytest.raises(InputError, match="class name must be non-empty UTF-8 text"):
        folder_source(tmp_path)


def test_a_corrupt_file_is_named_before_the_run(tmp_path: Path) -> None:
    root = make_split(tmp_path)
    bad = root / "test" / "b" / "0.png"
    bad.write_bytes(bad.read_bytes()[:50])
    with pytest.raises(InputError, match=r"image '.*/test/b/0\.png' must be readable"):
        verify_images(folder_source(root))


def test_arrays_are_taken_in_every_form() -> None:
    targets = [0, 1]
    grey = np.array([[[0, 128]], [[255, 1]]], dtype=np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=3)
    for images in (grey, colour, colour / 255.0, (colour / 255.0).astype(np.float32)):
        before = images.copy()
        source = array_source("x", (images, targets), (images, np.array(targets, np.uint8)))
        np.testing.assert_array_equal(source.train.read(1), colour[1])
        np.testing.assert_array_equal(images, before)
    assert source.classes == ("0", "1")
    assert array_source("x", (grey, targets), (grey, targets), ["c", "d"]).classes == ("c", "d")


def test_arrays_are_copied() -> None:
    images = np.zeros((2, 1, 1), np.uint8)
    source = array_source("x", (images, [0, 1]), (images, [0, 1]))
    images[:] = 9
    source.train.read(0)[:] = 9
    assert source.train.read(0).max() == 0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "pixels of sample 1 of x train must be finite and lie in .0, 1., got nan"),
        (np.inf, "pixels of sample 1 of x train .* got inf"),
        (1.5, "pixels of sample 1 of x train .* got 1.5"),
        (-0.1, "pixels of sample 1 of x train .* got -0.1"),
    ],
)
def test_bad_pixels_are_refused(value: float, message: str) -> None:
    images = np.zeros((2, 3, 3))
    images[1, 2, 2] = value
    with pytest.raises(InputError, match=message):
        array_source("x", (images, [0, 1]), (np.zeros((2, 3, 3)), [0, 1]))


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (np.zeros((2, 3, 3, 4)), [0, 1], r"must have shape \(N, H, W, 3\) .* got \(2, 3, 3, 4\)"),
        (np.zeros((2, 3)), [0, 1], r"must have shape .* got \(2, 3\)"),
        (np.zeros((2, 0, 3)), [0, 1], r"must have shape .* got \(2, 0, 3\)"),
        (np.zeros((2, 3, 3), int), [0, 1], "must be uint8 or float, got int64"),
        (np.zeros((3, 3, 3)), [0, 1], "as many images as targets, got 3 and 2"),
        (np.zeros((2, 3, 3)), [0, -1], "target of sample 1 of x train must lie in 0 to 1, got -1"),
        (np.zeros((2, 3, 3)), [0, 2], "target of sample 1 of x train must lie in 0 to 1, got 2"),
        (np.zeros((2, 3, 3)), [0, 0.5], "vector of integers, got float64"),
        (np.zeros((2, 3, 3)), [[0, 1]], r"vector of integers, got int64 of shape \(1, 2\)"),
        (np.zeros((0, 3, 3)), [], "must be a non-empty vector"),
        (np.zeros((2, 3, 3)), [0, 0], "class '1' of 'x' must have at least one train image"),
    ],
)
def test_bad_arrays_are_refused(images: np.ndarray, targets: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        array_source("x", (images, targets), (np.zeros((2, 3, 3)), [0, 1]), ["0", "1"])


def test_a_label_gap_in_arrays_is_refused() -> None:
    data = (np.zeros((2, 3, 3)), [0, 2])
    with pytest.raises(InputError, match="class '1' of 'x' must have at least one train image"):
        array_source("x", data, data)


def test_open_source_finds_the_reader(tmp_path: Path) -> None:
    assert open_source("digits").name == "digits"
    assert len(open_source(make_split(tmp_path)).train) == 6
    assert len(open_source(str(tmp_path)).train) == 6


def test_open_source_names_what_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown stream or data path 'digit'; .* 'digits'"):
        open_source("digit")
    for path in (tmp_path / "gone", tmp_path / "gone.parquet", "gone.parquet"):
        with pytest.raises(InputError, match=r"gone.*must be an image folder, a \.parquet file"):
            open_source(path)
    (tmp_path / "data.doc").write_text("x")
    with pytest.raises(InputError, match=r"data\.doc' must be an image folder"):
        open_source(tmp_path / "data.doc")


def test_a_path_with_a_typo_is_told_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_split(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"'photo'.* Known: digits; there is no '.*/photo'.*'photos'"
    ):
        open_source("photo")
    with pytest.raises(InputError, match=r"photo.* that exists; beside it are 'photos'"):
        open_source(tmp_path / "photo")


@pytest.mark.parametrize("key", ["class_depth", "image_column", "label_column", "max_pixels"])
def test_options_of_paths_are_refused_for_streams(key: str) -> None:
    value = 2 if key in ("class_depth", "max_pixels") else "x"
    name = key.replace("max_pixels", "max_megapixels")
    with pytest.raises(InputError, match=f"`{name}` must go with other data, got the stream"):
        open_source("digits", ReadOptions(**{key: value}))
    assert open_source("digits", ReadOptions()).name == "digits"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "classes", "train", "test"),
    [
        ("cifar100_mini", 100, 2000, 1000),
        ("cifar100_120", 100, 10000, 2000),
        ("gtsrb_64", 43, 4905, 1630),
        ("pacs_160", 7, 7984, 2007),
        ("omniglot_small", 242, 3630, 1210),
    ],
)
def test_real_files_are_read_whole(name: str, classes: int, train: int, test: int) -> None:
    path = DATA / f"{name}.parquet"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    source = open_source(path)
    assert (len(source.classes), len(source.train), len(source.test)) == (classes, train, test)
    verify_images(source)


def test_classes_in_the_order_of_their_text_keep_their_images(tmp_path: Path) -> None:
    natural = folder_source(make_split(tmp_path / "photos"))
    text = in_text_order(natural)
    assert text.classes == ("10", "2", "b")
    for before, after in ((natural.train, text.train), (natural.test, text.test)):
        for index in range(len(before)):
            assert before.name(index) == after.name(index)
            label = text.classes[after.targets[index]]
            assert label == natural.classes[before.targets[index]]
            assert f"/{label}/" in after.name(index)
