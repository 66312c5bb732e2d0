"""Images that come after others: numbers, digests, spellings."""

import hashlib

import numpy as np
import pytest

from cl_adapters.benchmarks.data.joining import Before, check_spelling, join, learned_source
from cl_adapters.benchmarks.data.sources import ImageSource, array_source
from cl_adapters.errors import InputError


def source(name: str, classes: list[str], each: int, first: int) -> ImageSource:
    """Images of one colour each, numbered from `first` on."""
    targets = np.repeat(np.arange(len(classes)), each)
    pixels = np.arange(first, first + len(targets), dtype=np.uint8)
    images = np.tile(pixels[:, None, None], (1, 2, 2))
    return array_source(name, (images, targets), (images + 100, targets), classes)


def test_old_images_and_classes_keep_their_numbers_and_new_ones_follow() -> None:
    old = source("old", ["dog", "cat"], each=2, first=0)
    new = source("new", ["bee", "cat"], each=2, first=50)
    joined = join(old, new)
    assert joined.classes == ("dog", "cat", "bee")
    assert joined.train.targets.tolist() == [0, 0, 1, 1, 2, 2, 1, 1]
    shown = [int(joined.train.read(index)[0, 0, 0]) for index in range(8)]
    assert shown == [0, 1, 2, 3, 50, 51, 52, 53]
    assert [int(joined.test.read(index)[0, 0, 0]) for index in (0, 4)] == [100, 150]


def test_digests_are_those_of_the_images_wherever_they_lie() -> None:
    joined = join(source("old", ["a"], each=2, first=0), source("new", ["b"], each=1, first=9))
    stores = [(joined.train.store, row) for row in joined.train.rows.tolist()]
    assert list(joined.train.digests) == [
        hashlib.sha256(store.encoded(row)).digest() for store, row in stores
    ]


@pytest.mark.parametrize(
    ("new", "known"),
    [
        ("Cat", "cat"),
        ("STRASSE", "straße"),
        ("stop_sign", "stop sign"),
        ("stop-sign", "stop sign"),
        ("Stop\u2010sign", "stop_sign"),
        ("stop  sign", "stop_sign"),
        (" cat ", "cat"),
        ("e\u0301tang", "\u00e9tang"),
        ("\uff43at", "cat"),  # a wide c
    ],
)
def test_another_spelling_of_a_known_class_is_refused_naming_both(new: str, known: str) -> None:
    with pytest.raises(InputError) as caught:
        check_spelling(["bee", new], ["ant", known], "month2")
    assert repr(new) in str(caught.value)
    assert repr(known) in str(caught.value)


@pytest.mark.parametrize("names", [["cat"], ["cats"], ["ca t"], ["10"], ["1 0"]])
def test_the_same_name_and_other_names_are_good(names: list[str]) -> None:
    check_spelling(names, ["cat", "1"], "month2")


def test_spellings_that_were_learned_apart_stay_apart() -> None:
    check_spelling(["Cat", "cat"], ["cat", "Cat"], "month2")


def test_what_was_learned_needs_no_images_and_what_is_new_does() -> None:
    before = Before(
        source="old",
        classes=["dog", "cat"],
        experiences=[[0], [1]],
        domains=[],
        samples=7,
        known={"stream": "old"},
    )
    learned = learned_source(before)
    joined = join(learned, source("new", ["bee", "cat"], each=1, first=0))
    assert joined.classes == ("dog", "cat", "bee")
    assert joined.train.targets.tolist() == [2, 1]
    assert joined.describe()["learned"] == learned.describe()["learned"]
    with pytest.raises(InputError, match="class 'dog' .* must have at least one train image"):
        ImageSource("bare", learned.classes, learned.train, learned.test)
