"""Hypothesis strategies for folders and tables as people might have them."""

import io
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from PIL import Image

__all__ = ["folders", "options", "tables", "write_folder", "write_table"]


def encoded(value: int, mode: str, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (2, 2), value % 256).convert(mode).save(stream, kind)
    return stream.getvalue()


CONTENTS = [
    *(encoded(place, mode, "PNG") for place, mode in enumerate(("L", "RGB", "RGBA", "P"))),
    encoded(5, "CMYK", "TIFF"),
    encoded(6, "F", "TIFF"),
    b"",
    b"text",
    b"label,file\nant,0.png\n",
    b"file,label\n0.png,ant\n1.png,ant\n",
    b"PAR1",
]
FOLDER_NAMES = st.sampled_from(
    ("train", "Test", "valid", "val", "seg_train", "Training", "ant", "bee", "1", "10", "images",
     "__MACOSX", ".git", "data", "cre\u0300me", "cr\u00e8me", "b\udcff", "[red]", "a b")
)  # fmt: skip
FILE_NAMES = st.sampled_from(
    ("0.png", "1.PNG", "2.tif", "x.txt", ".hidden.png", "labels.csv", "train.csv", "x.parquet",
     "train-00000-of-00002.parquet", "noname", "phone.heic", "3.jfif", "\x1b[31m.png")
)  # fmt: skip
# What an entry is: a file's content, or where a link leads, relative to its folder.
ENTRIES = st.one_of(
    st.sampled_from(CONTENTS),
    st.sampled_from(("..", ".", "../..", "nowhere", "0.png", "../ant", "/dev/null")),
)
folders = st.dictionaries(
    st.tuples(st.lists(FOLDER_NAMES, max_size=4).map(tuple), FILE_NAMES), ENTRIES, max_size=14
)
options = st.fixed_dictionaries(
    {},
    optional={
        "class_depth": st.integers(1, 3),
        "image_column": st.sampled_from(("image", "file", "")),
        "label_column": st.sampled_from(("label", "n", "\0")),
        "max_pixels": st.sampled_from((1, 4, 10**9)),
    },
)

CELLS = st.sampled_from(
    (
        None, *CONTENTS, -1, 0, 1, 2, 2**40, 0.0, 0.5, float("nan"), float("inf"), True, "", "ant",
        "\U0001f41d", "train", {"bytes": CONTENTS[1], "path": None}, {"bytes": None, "path": "x"},
        {"path": "x"}, {}, [], [0, 1], [None],
    )
)  # fmt: skip
COLUMN_NAMES = st.sampled_from(
    ("image", "img", "jpg", "label", "target", "class", "fine_label", "split", "domain", "n", "")
)


def _columns(rows: int) -> st.SearchStrategy[list[tuple[str, list[Any]]]]:
    # Now and then of the right kind, so that rare cells meet sound neighbours.
    likely = st.sampled_from(
        (
            ("image", [CONTENTS[place % 4] for place in range(rows)]),
            ("label", [place % 2 for place in range(rows)]),
            ("split", [("train", "test", "train", "test")[place % 4] for place in range(rows)]),
        )
    )
    cells = st.one_of(
        st.lists(CELLS, min_size=rows, max_size=rows),
        CELLS.flatmap(lambda cell: st.just([cell] * rows)),
    )
    return st.lists(likely | st.tuples(COLUMN_NAMES, cells), max_size=6)


METADATA = st.dictionaries(
    st.sampled_from(("classes", "huggingface", "pandas")),
    st.sampled_from(
        ("", "null", "[]", '["a", "b"]', '["a"]', "[1]", '{"info": null}', "[" * 5000,
         '{"info": {"features": {"label": {"names": ["a", "b"]}}}}', '{"info": [1]}', "\ufeff")
    ),
)  # fmt: skip
tables = st.tuples(st.integers(0, 5).flatmap(_columns), METADATA)


def write_folder(root: Path, entries: dict[tuple[tuple[str, ...], str], bytes | str]) -> None:
    """Writes entries; one whose place is taken by another is left out."""
    for (above, name), entry in entries.items():
        folder = root.joinpath(*above)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if isinstance(entry, bytes):
                (folder / name).write_bytes(entry)
            elif not os.path.lexists(folder / name):
                (folder / name).symlink_to(entry)
        except OSError:
            continue


def write_table(path: Path, table: tuple[list[tuple[str, list[Any]]], dict[str, str]]) -> bool:
    """Writes a table; says whether Arrow has a type for its cells."""
    columns, metadata = table
    try:
        arrays = [pa.array(cells) for _, cells in columns]
        made = pa.Table.from_arrays(arrays, [name for name, _ in columns])
        pq.write_table(made.replace_schema_metadata(metadata), path)
    except (pa.ArrowException, UnicodeEncodeError):
        return False
    return True
