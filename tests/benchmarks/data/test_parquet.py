import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cl_adapters.benchmarks.data.parquet import parquet_source
from cl_adapters.benchmarks.data.reading import ReadOptions
from cl_adapters.benchmarks.data.sources import open_source
from cl_adapters.benchmarks.data.verifying import verify_images
from cl_adapters.errors import InputError


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (3, 2), value).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, columns: dict[str, object], metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


def ours(
    path: Path,
    labels: object = (0, 1, 0, 1),
    splits: object = ("train", "train", "test", "test"),
    metadata: dict[str, str] | None = None,
) -> Path:
    return write(
        path / "data.parquet",
        {"image": [png(value) for value in range(4)], "label": labels, "split": splits},
        metadata,
    )


def public(
    path: Path,
    labels: Sequence[int] = (0, 1, 0, 1),
    *,
    column: str = "fine_label",
    names: bool = True,
) -> Path:
    """A file as public data set hubs export it."""
    images = [{"bytes": png(value), "path": None} for value in range(len(labels))]
    features = {column: {"names": ["ant", "bee"], "_type": "ClassLabel"}, "img": {"_type": "Image"}}
    coarse = [0] * len(labels)
    return write(
        path,
        {"img": images, column: list(labels), "coarse_label": coarse},
        {"huggingface": json.dumps({"info": {"features": features}})} if names else None,
    )


def test_a_split_column_is_followed(tmp_path: Path) -> None:
    path = ours(tmp_path, metadata={"classes": '["x", "y"]'})
    source = open_source(path)
    assert source.name == "data"
    assert source.classes == ("x", "y")
    assert source.train.rows.tolist() == [0, 1]
    assert source.test.targets.tolist() == [0, 1]
    assert source.test.read(1).tolist() == [[[3, 3, 3]] * 3] * 2
    assert source.test.name(1) == f"in row 3 of {str(path)!r}"
    verify_images(source)


def test_dictionary_columns_and_missing_names_are_fine(tmp_path: Path) -> None:
    splits = pa.array(["train", "train", "test", "test"]).dictionary_encode()
    source = parquet_source(ours(tmp_path, pa.array([0, 1, 0, 1], pa.int16()), splits))
    assert source.classes == ("0", "1")
    assert source.train.targets.tolist() == [0, 1]


def test_text_labels_are_class_names_in_natural_order(tmp_path: Path) -> None:
    labels = pa.array(["c10", "c2", "c10", "c2"]).dictionary_encode()
    source = parquet_source(ours(tmp_path, labels))
    assert source.classes == ("c2", "c10")
    assert source.train.targets.tolist() == [1, 0]


def test_whole_floats_are_labels(tmp_path: Path) -> None:
    assert parquet_source(ours(tmp_path, [0.0, 1.0, 0.0, 1.0])).classes == ("0", "1")


def test_without_a_split_the_content_decides(tmp_path: Path) -> None:
    images, labels = [png(value) for value in range(20)], [0] * 10 + [1] * 10
    path = write(tmp_path / "a.parquet", {"image": images, "label": labels})
    source = parquet_source(path)
    assert np.bincount(source.test.targets).tolist() == [2, 2]
    back = write(tmp_path / "b.parquet", {"image": images[::-1], "label": labels[::-1]})
    assert parquet_source(back).describe() == source.describe()
    assert len(parquet_source(path, test_share=0.5).test) == 10


def test_a_public_export_in_two_files_is_read(tmp_path: Path) -> None:
    public(tmp_path / "train-00000-of-00001.parquet", [0, 1, 1])
    public(tmp_path / "test-00000-of-00001.parquet", [1, 0])
    source = open_source(tmp_path)
    assert source.classes == ("ant", "bee")
    assert source.train.targets.tolist() == [0, 1, 1]
    assert source.test.targets.tolist() == [1, 0]
    verify_images(source)


def test_many_parts_and_validation_names_are_read(tmp_path: Path) -> None:
    for part in range(11):
        public(tmp_path / f"train-{part}.parquet", [part % 2], column="label", names=False)
    public(tmp_path / "validation.parquet", column="label", names=False)
    source = parquet_source(tmp_path)
    assert source.classes == ("0", "1")
    assert source.train.targets.tolist() == [0, 1] * 5 + [0]
    assert len(source.test) == 4


def test_files_of_one_set_may_differ_in_integer_width(tmp_path: Path) -> None:
    for name, kind in (("train", pa.int64()), ("test", pa.int16())):
        columns = {"image": [png(0), png(1)], "label": pa.array([0, 1], kind)}
        write(tmp_path / f"{name}.parquet", columns)
    assert len(parquet_source(tmp_path).test) == 2


def test_checksums_agree_across_layouts(tmp_path: Path) -> None:
    one = parquet_source(ours(tmp_path, metadata={"classes": '["ant", "bee"]'}))
    images = [png(value) for value in range(4)]
    for name, part in (("train", slice(0, 2)), ("test", slice(2, 4))):
        columns = {"image": images[part], "label": ["ant", "bee"]}
        write(tmp_path / "two" / f"{name}.parquet", columns)
    assert parquet_source(tmp_path / "two").describe() == one.describe()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 0, None], "label in row 3 of .* must not be empty, got null"),
        ([0, 1, 0, float("nan")], "label in row 3 of .* must be a whole number from 0, got nan"),
        ([0, 1, 0, 0.5], "label in row 3 of .* must be a whole number from 0, got 0.5"),
        ([0, 1, -1, 1], "label in row 2 of .* must be a whole number from 0, got -1"),
        ([0, 2, 0, 2], "labels of .* must run from 0 to 2 without a gap, got none equal to 1"),
        ([0, 2**40, 0, 2**40], f"label in row 1 of .* got {2**40}"),
        ([True, False, True, False], "labels of .* must be whole numbers or text, got bool"),
        ([0, 1, 0, 0], "class '1' of 'data' must have at least one test image, got 0"),
        ([0, 0, 0, 1], "class '1' of 'data' must have at least one train image, got 0"),
    ],
)
def test_bad_labels_are_refused(tmp_path: Path, labels: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parquet_source(ours(tmp_path, labels))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ('["x"]', r"label in row 1 of .* less than the number of class names, 1, got 1"),
        ('["x", "y", "z"]', "class 'z' of 'data' must have at least one train image"),
        ('["x", "x"]', "class names must differ"),
        ('{"x": 1}', "class names in .* must be a list of texts"),
        ("[", "class names in .* must be JSON"),
    ],
)
def test_bad_class_names_are_refused(tmp_path: Path, names: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parquet_source(ours(tmp_path, metadata={"classes": names}))


def test_metadata_of_other_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"class names in .* must be JSON"):
        parquet_source(ours(tmp_path, metadata={"huggingface": "[1]"}))
    assert parquet_source(ours(tmp_path, metadata={"huggingface": "{}"})).classes == ("0", "1")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train", "train", "test", "dev"], "split in row 3 of .* must be one of .* got 'dev'"),
        (["train", "train", "test", None], "split in row 3 of .* got None"),
        (["train", "train", "valid", "val"], "must hold one test set, got val, valid"),
        (["train"] * 4, "class '0' of 'data' must have at least one test image"),
    ],
)
def test_bad_splits_are_refused(tmp_path: Path, splits: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parquet_source(ours(tmp_path, splits=splits))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0]}, "must have a column 'image' or 'img', got .'label'.$"),
        ({"image": [b"x"]}, "must have a column 'label' or 'fine_label' or 'labels', got "),
        ({"image": ["x"], "label": [0]}, "'image' of .* encoded images as bytes, got string"),
        ({"image": [b"x", None], "label": [0, 0]}, "image in row 1 of .* not be empty, got null"),
        ({"image": pa.array([], pa.binary()), "label": []}, "at least one image, got 0 rows"),
    ],
)
def test_bad_columns_are_refused(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parquet_source(write(tmp_path / "x.parquet", columns))


def test_a_corrupt_image_is_named_by_its_row(tmp_path: Path) -> None:
    columns = {"image": [png(0), png(1), png(2), b"junk"], "label": [0, 0, 0, 0]}
    path = write(tmp_path / "x.parquet", columns)
    with pytest.raises(InputError, match=r"image in row 3 of '.*x\.parquet' must be a JPEG"):
        verify_images(parquet_source(path))


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"junk")
    with pytest.raises(InputError, match=r"x\.parquet' must be a readable parquet file"):
        open_source(path)


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold \.parquet files, got none"):
        parquet_source(tmp_path)
    path = public(tmp_path / "all.parquet")
    with pytest.raises(InputError, match=r"all\.parquet' must say whether it is train, test"):
        parquet_source(tmp_path)
    path.rename(tmp_path / "train.parquet")
    columns = {"img": [1], "fine_label": [0]}
    write(tmp_path / "test.parquet", columns)
    with pytest.raises(InputError, match="must have equal columns"):
        parquet_source(tmp_path)


def test_validation_beside_test_is_left_out_and_counted(tmp_path: Path) -> None:
    for name in ("train", "test", "validation"):
        public(tmp_path / f"{name}-00000-of-00001.parquet", column="label")
    source = open_source(tmp_path)
    assert (len(source.train), len(source.test)) == (4, 4)
    assert source.reading.layout == (
        "table, images in column 'img', labels in 'label', test set 'test'"
    )
    assert source.reading.counts() == {"an image of another split": 4}
    one = parquet_source(ours(tmp_path / "one", [0, 0, 0, 0], ["train", "val", "test", "val"]))
    assert len(one.test) == 1
    assert one.reading.counts() == {"an image of another split": 2}


def test_a_validation_set_of_a_table_can_be_chosen(tmp_path: Path) -> None:
    for name in ("train", "test", "validation"):
        public(tmp_path / f"{name}.parquet", column="label", names=False)
    chosen = parquet_source(tmp_path, options=ReadOptions(test_set="validation"))
    assert chosen.reading.layout.endswith("test set 'valid'")
    for wanted in ("test", "validation"):
        (tmp_path / f"{wanted}.parquet").unlink()
        with pytest.raises(InputError, match=rf"must hold the {wanted} set that `test_set` names"):
            parquet_source(tmp_path, options=ReadOptions(test_set=wanted))
        public(tmp_path / f"{wanted}.parquet", column="label", names=False)
    with pytest.raises(InputError, match="`test_set` must go with other data"):
        parquet_source(tmp_path / "train.parquet", options=ReadOptions(test_set="test"))


@pytest.mark.parametrize(
    "names",
    [
        ("data/train-00000-of-00001", "data/test-00000-of-00001"),
        ("train/0000", "test/0000"),
        ("default/Training/0000", "default/Testing/0000"),
        ("plain_text/train/0", "plain_text/validation/0"),
    ],
)
def test_tables_in_folders_are_found(tmp_path: Path, names: tuple[str, str]) -> None:
    for name, labels in zip(names, ([0, 1, 1], [1, 0]), strict=True):
        public(tmp_path / f"{name}.parquet", labels)
    (tmp_path / "README.md").write_text("x", "utf-8")
    source = open_source(tmp_path)
    assert source.train.targets.tolist() == [0, 1, 1]
    assert source.test.targets.tolist() == [1, 0]


def test_two_sets_of_tables_are_refused(tmp_path: Path) -> None:
    for name in ("fine/train", "fine/test", "coarse/train", "coarse/test"):
        public(tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match=r"one set of tables, got 2 folders .*'coarse', 'fine'"):
        open_source(tmp_path)
    assert len(open_source(tmp_path / "fine").test) == 4


def test_a_shard_alone_is_refused(tmp_path: Path) -> None:
    path = public(tmp_path / "train-00000-of-00002.parquet")
    with pytest.raises(InputError, match=r"is one of 2 parts of a table; give the folder"):
        open_source(path)
    public(tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(InputError, match=r"must hold all 2 parts of 'train', lacks part 1"):
        open_source(tmp_path)
    public(tmp_path / "train-00001-of-00002.parquet")
    assert len(open_source(tmp_path).train) == 8


@pytest.mark.parametrize("label", ["coarse_label", "target", "class", "category"])
@pytest.mark.parametrize("image", ["jpg", "png"])
def test_other_columns_are_found_where_there_is_one(tmp_path: Path, image: str, label: str) -> None:
    columns = {image: [png(value) for value in range(4)], label: [0, 1, 0, 1], "n": [1, 2, 3, 4]}
    source = parquet_source(write(tmp_path / "x.parquet", columns), test_share=0.5)
    assert len(source.train) == 2
    assert f"images in column {image!r}, labels in {label!r}" in source.reading.layout


def test_columns_can_be_named(tmp_path: Path) -> None:
    images = [png(value) for value in range(4)]
    path = write(
        tmp_path / "x.parquet",
        {"scan": images, "image": images[::-1], "label": [0] * 4, "kind": ["a", "b", "a", "b"]},
    )
    options = ReadOptions(image_column="scan", label_column="kind")
    source = parquet_source(path, options=options)
    assert source.classes == ("a", "b")
    assert bytes(source.train.store.encoded(1)) == images[1]
    with pytest.raises(
        InputError, match=r"the column 'sort' that `label_column` names, got .'scan"
    ):
        parquet_source(path, options=ReadOptions(label_column="sort"))
    with pytest.raises(InputError, match="`class_depth` must go with other data"):
        parquet_source(path, options=ReadOptions(class_depth=2))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"scan": [b"x"], "label": [0]},
            "'img', got .*; `image_column` names .*: 'scan' may be it",
        ),
        ({"img": [b"x"], "kind": [0]}, "'labels', got .*; `label_column` names .*: 'kind' may be"),
        (
            {"img": [b"x"], "target": [0], "class": [0]},
            "one column that `label_column` may mean, got 'target', 'class'; `label_column` says",
        ),
        ({"img": [{"path": "a.png"}], "label": [0]}, r"as bytes, got struct.*is read from \.csv"),
        ({"image": ["a.png"], "label": [0]}, r"as bytes, got string; .* is read from \.csv"),
    ],
)
def test_what_was_found_in_other_columns_is_said(
    tmp_path: Path, columns: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        parquet_source(write(tmp_path / "x.parquet", columns))
    assert "\n" not in str(refusal.value)


def test_a_column_that_stands_twice_is_refused_in_one_line(tmp_path: Path) -> None:
    array = pa.array([png(0), png(1)])
    table = pa.Table.from_arrays([array, array, pa.array([0, 0])], ["image", "image", "label"])
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(InputError, match="must have one column 'image', got 2"):
        parquet_source(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    "found", ['{"info": null}', '{"info": {"features": null}}', '{"info": {}}', "{}", "null"]
)
def test_metadata_without_names_are_no_metadata(tmp_path: Path, found: str) -> None:
    assert parquet_source(ours(tmp_path, metadata={"huggingface": found})).classes == ("0", "1")


def test_domains_may_be_numbers(tmp_path: Path) -> None:
    columns = {
        "image": [png(value) for value in range(4)],
        "label": [0, 0, 0, 0],
        "split": ["train", "train", "test", "test"],
        "domain": pa.array([7, 12, None, 7], pa.int16()),
    }
    source = parquet_source(write(tmp_path / "x.parquet", columns))
    assert source.train.domains is not None
    assert source.train.domains.tolist() == ["7", "12"]
    assert source.test.domains is not None
    assert source.test.domains.tolist() == ["", "7"]


def test_a_text_label_of_many_digits_is_a_class(tmp_path: Path) -> None:
    labels = ["1" * 5000, "2", "1" * 5000, "2"]
    assert parquet_source(ours(tmp_path, labels)).classes == ("2", "1" * 5000)
