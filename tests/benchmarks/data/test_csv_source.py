"""Images that a table of text names, beside it or in folders."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from cl_adapters.benchmarks.data.reading import ReadOptions
from cl_adapters.benchmarks.data.sources import open_source
from cl_adapters.benchmarks.data.verifying import verify_images
from cl_adapters.errors import InputError

KINDS = ("ant", "bee")


def images(folder: Path, count: int = 8) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        Image.new("RGB", (2, 2), (number, len(str(folder)), 0)).save(folder / name)
    return names


def write(path: Path, heading: str, rows: Sequence[str]) -> Path:
    path.write_text("\n".join([heading, *rows]) + "\n", "utf-8")
    return path


@pytest.mark.parametrize("given", ["", "labels.csv"])
@pytest.mark.parametrize("folder", ["", "images", "images/jpg"])
@pytest.mark.parametrize("heading", ["file_name,label", "image_id,target", "path,class"])
def test_a_table_beside_images_is_read(
    tmp_path: Path, given: str, folder: str, heading: str
) -> None:
    names = images(tmp_path / folder)
    rows = [f"{name},{KINDS[place % 2]}" for place, name in enumerate(names)]
    write(tmp_path / "labels.csv", heading, rows)
    source = open_source(tmp_path / given)
    assert source.classes == KINDS
    assert (len(source.train), len(source.test)) == (6, 2)
    verify_images(source)
    for each in (source.train, source.test):
        for index in range(len(each)):
            number = each.read(index)[0, 0, 0]
            assert each.targets[index] == number % 2
    file, label = heading.split(",")
    assert source.reading.layout == (
        f"table 'labels.csv', files in column {file!r}, labels in {label!r}, split by content"
    )
    assert source.reading.left_out == ()


def test_files_may_be_named_without_suffix_or_with_folders(tmp_path: Path) -> None:
    images(tmp_path / "images" / "a", 2)
    images(tmp_path / "images" / "b", 2)
    rows = ["a/0,ant", "b\\0,bee", "./a/1.png,ant", "images/b/1.png,bee"]
    write(tmp_path / "labels.csv", "id,label", rows)
    source = open_source(tmp_path / "labels.csv")
    names = {each.name(index) for each in (source.train, source.test) for index in range(2)}
    assert names == {
        repr(str(tmp_path / "images" / folder / f"{number}.png"))
        for folder in "ab"
        for number in range(2)
    }


def test_splits_and_domains_are_followed_and_the_rest_counted(tmp_path: Path) -> None:
    images(tmp_path / "images", 7)
    rows = ["0,ant,train,x", "1,ant,test,y", "2,bee,Train,x", "3,bee,testing,y", "4,bee,val,x"]
    write(tmp_path / "labels.csv", "id,label,split,domain", rows)
    (tmp_path / "notes.txt").write_text("x", "utf-8")
    source = open_source(tmp_path)
    assert source.train.targets.tolist() == [0, 1]
    assert source.test.read(1)[0, 0, 0] == 3
    assert source.test.domains is not None
    assert source.test.domains.tolist() == ["y", "y"]
    assert source.reading.counts() == {
        "an image that the table does not name": 2,
        "no image by the name": 1,
        "an image of another split": 1,
    }


@pytest.mark.parametrize(("suffix", "cut"), [(".tsv", "\t"), (".csv", ";"), (".CSV", "\t")])
def test_other_marks_between_cells_are_seen(tmp_path: Path, suffix: str, cut: str) -> None:
    rows = [f"{name}{cut}{KINDS[place % 2]}" for place, name in enumerate(images(tmp_path))]
    write(tmp_path / f"labels{suffix}", f"file{cut}label", rows)
    assert open_source(tmp_path).classes == KINDS


def test_columns_can_be_named(tmp_path: Path) -> None:
    rows = [f"{place},{name},ant,{KINDS[place % 2]}" for place, name in enumerate(images(tmp_path))]
    path = write(tmp_path / "labels.csv", "n,scan,label,kind", rows)
    with pytest.raises(InputError, match=r"`image_column` names another: 'scan' may be it"):
        open_source(path)
    options = ReadOptions(image_column="scan", label_column="kind")
    assert open_source(path, options).classes == KINDS
    with pytest.raises(InputError, match="`class_depth` must go with other data"):
        open_source(path, ReadOptions(class_depth=1))


@pytest.mark.parametrize(
    ("heading", "rows", "message"),
    [
        ("file,label", [], "must hold a heading and at least one image, got 0 rows"),
        ("file,label", ["0.png"], "row 0 of .* must have 2 cells, got 1"),
        ("file,label", ["0.png,"], "cell 'label' in row 0 of .* must not be empty"),
        (
            "file,label",
            ["gone.png,ant"],
            "row 0 of .* must name one image beside .*, got 'gone.png'",
        ),
        ("file,label", ["../0.png,ant"], "must name one image beside the table"),
        ("file,label", ["0.png,ant"], "class 'ant' must have at least two images"),
        ("file,label,split", ["0.png,ant,bread"], "split in row 0 of .* got 'bread'"),
        ("file,file,label", ["0.png,0.png,ant"], "must have one column 'file', got 2"),
        ("a,b", ["0.png,ant"], "must have a column 'file_name' or .* 'a' may be it"),
        ('file,"label', ["0.png,ant"], "must be a table of text in UTF-8, got: "),
    ],
)
def test_bad_tables_are_refused(
    tmp_path: Path, heading: str, rows: list[str], message: str
) -> None:
    images(tmp_path)
    with pytest.raises(InputError, match=message) as refusal:
        open_source(write(tmp_path / "labels.csv", heading, rows))
    assert "\n" not in str(refusal.value)


def test_a_name_that_may_be_two_images_is_refused(tmp_path: Path) -> None:
    images(tmp_path / "a", 1)
    images(tmp_path / "b", 1)
    path = write(tmp_path / "labels.csv", "file,label", ["0.png,ant"])
    with pytest.raises(InputError, match=r"got '0\.png', which may be 'a/0\.png', 'b/0\.png'"):
        open_source(path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"file,label\n\xff\xfe,ant\n")
    with pytest.raises(InputError, match="must be a table of text in UTF-8"):
        open_source(tmp_path / "labels.csv")


def test_folders_that_a_table_contradicts_are_no_classes(tmp_path: Path) -> None:
    """As in the HAM10000 download: two folders of images and one table of labels."""
    images(tmp_path / "part_1")
    for number, name in enumerate(images(tmp_path / "part_2")):
        (tmp_path / "part_2" / name).rename(tmp_path / "part_2" / f"{number + 8}.png")
    rows = [f"{number},{KINDS[number % 2]}" for number in range(16)]
    path = write(tmp_path / "metadata.csv", "image_id,label", rows)
    with pytest.raises(InputError, match=r"'metadata\.csv' gives images of one folder different"):
        open_source(tmp_path)
    assert open_source(path).classes == KINDS


def test_folders_that_a_table_repeats_are_classes(tmp_path: Path) -> None:
    rows = [f"{kind}/{name},{kind}" for kind in KINDS for name in images(tmp_path / kind)]
    write(tmp_path / "labels.csv", "file,label", rows)
    assert open_source(tmp_path).reading.layout == "class folders, split by content"


def test_several_tables_beside_images_are_refused(tmp_path: Path) -> None:
    images(tmp_path / "images")
    for name in ("train.csv", "test.csv"):
        write(tmp_path / name, "file,label", ["0.png,ant"])
    with pytest.raises(InputError, match=r"one table of labels, got 'test\.csv', 'train\.csv'"):
        open_source(tmp_path)
