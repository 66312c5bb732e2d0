"""Several data sets as one source."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from cl_adapters.benchmarks.data.datasets import join_datasets, of_domain
from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.sources import array_source, open_source
from cl_adapters.benchmarks.data.stores import Pixels
from cl_adapters.errors import InputError
from tests.benchmarks.datasets import in_memory, written


def test_classes_and_images_keep_their_order_and_say_their_data_set() -> None:
    parts = [in_memory("signs", 0, 2), in_memory("digits", 1, 3)]
    source = join_datasets(parts)
    assert source.name == "signs-digits"
    assert source.classes == ("signs/0", "signs/1", "digits/0", "digits/1", "digits/2")
    assert source.starts == [0, 2]
    expected = [(part, label, k) for part in (0, 1) for label in range(2 + part) for k in range(4)]
    for index, (part, label, k) in enumerate(expected):
        assert source.classes[source.train.targets[index]] == f"{parts[part].name}/{label}"
        assert np.array_equal(source.train.read(index), parts[part].train.read(4 * label + k))
    assert source.test.digests == (*parts[0].test.digests, *parts[1].test.digests)


def test_the_fingerprint_holds_each_data_set_and_changes_with_any_of_them() -> None:
    parts = [in_memory("signs", 0, 2), in_memory("digits", 1, 3)]
    source = join_datasets(parts)
    known = source.describe()
    assert known["datasets"] == [{"name": part.name, **part.describe()} for part in parts]
    assert (known["classes"], known["train"]["images"]) == (5, 20)
    other = join_datasets([parts[0], in_memory("digits", 2, 3)]).describe()
    assert other["train"] != known["train"]
    assert other["datasets"][0] == known["datasets"][0]


def test_grey_and_coloured_images_go_together() -> None:
    grey = np.arange(16, dtype=np.uint8).reshape(4, 2, 2)
    source = join_datasets(
        [array_source("grey", (grey[:2], [0, 1]), (grey[2:], [0, 1])), in_memory("signs", 0, 2)]
    )
    assert {source.train.read(index).shape[2] for index in range(len(source.train))} == {3}


def test_a_long_list_of_data_sets_has_a_short_name() -> None:
    parts = [in_memory(f"{'long' * 5}{hue}", hue, 2) for hue in range(5)]
    assert join_datasets(parts).name == f"{'long' * 5}0-and-4-more"


def test_one_domain_of_the_data(tmp_path: Path) -> None:
    source = open_source(written(tmp_path / "a.parquet", 0, 2))
    ink = of_domain(source, "ink")
    assert ink.train.rows.tolist() == [0, 2, 6, 8], "of rows 0 to 3 and 6 to 9 the even ones"
    assert ink.test.rows.tolist() == [4, 10]
    with pytest.raises(InputError, match="unknown domain of 'a' 'inc'; did you mean 'ink'"):
        of_domain(source, "inc")
    with pytest.raises(InputError, match="must have a text column 'domain', 'signs' has none"):
        of_domain(in_memory("signs", 0, 2), "ink")


@dataclass(frozen=True, eq=False)
class Narrow:
    """A store of someone's own whose pixels have one channel."""

    def encoded(self, row: int) -> bytes:
        return bytes([row])

    def pixels(self, row: int) -> Pixels:
        return np.full((2, 2, 1), row, np.uint8)

    def name(self, row: int) -> str:
        return f"row {row}"


def _narrow() -> ImageSource:
    source = in_memory("narrow", 3, 2)
    return replace(source, train=replace(source.train, store=Narrow()))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            replace(in_memory("b", 0, 3), name="again"),
            "data sets 'signs' and 'again' must share no image, got 12 that both have, such as 0 of",
        ),
        (in_memory("one", 1, 1), "data set 'one' must hold at least two classes, got 1"),
        (_narrow(), r"'narrow' must be uint8 in three channels, .* got uint8 of shape \(2, 2, 1\)"),
    ],
)
def test_what_does_not_go_together_is_refused(other: ImageSource, message: str) -> None:
    with pytest.raises(InputError, match=message):
        join_datasets([in_memory("signs", 0, 2), other])
