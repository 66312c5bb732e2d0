import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cl_adapters.benchmarks.data.images import (
    ImageSource,
    LabelledImages,
    natural_key,
    split_off,
)
from cl_adapters.benchmarks.data.stores import ArrayStore
from cl_adapters.benchmarks.data.verifying import verify_images
from cl_adapters.errors import InputError


def make_images(targets: list[int], values: list[int] | None = None) -> LabelledImages:
    """One-pixel images of different values."""
    pixels = np.arange(len(targets)) if values is None else np.array(values)
    return LabelledImages(
        ArrayStore("test", pixels.astype(np.uint8).reshape(-1, 1, 1)),
        np.arange(len(targets)),
        np.array(targets, np.int64),
        tuple("abcdefgh"[: max(targets) + 1]),
    )


@given(st.lists(st.integers(0, 300), unique=True))
def test_natural_order_is_the_order_of_numbers(numbers: list[int]) -> None:
    names = sorted((f"c{number}" for number in numbers), key=natural_key)
    assert names == [f"c{number}" for number in sorted(numbers)]


def test_natural_order_takes_mixed_names() -> None:
    names = ["b", "2", "", "10", "a2b", "a02b", "ä", "1_000", "²"]
    assert sorted(names, key=natural_key)[:4] == ["", "1_000", "2", "10"]


@given(st.permutations(range(6)))
def test_the_checksum_ignores_the_order(order: list[int]) -> None:
    images = make_images([0, 0, 1, 1, 2, 2])
    assert images.take(np.array(order)).checksum() == images.checksum()


def test_the_checksum_is_that_of_its_definition() -> None:
    images = make_images([1, 0], [5, 9])
    samples = []
    for name, value in (("b", 5), ("a", 9)):
        image = hashlib.sha256(b"(1, 1)" + bytes([value])).digest()
        samples.append(hashlib.sha256(f"1:{name}:".encode() + image).digest())
    assert images.checksum() == hashlib.sha256(b"".join(sorted(samples))).hexdigest()


def test_the_checksum_sees_pixels_labels_and_repeats() -> None:
    checksums = {
        make_images([0, 1], [1, 2]).checksum(),
        make_images([0, 1], [2, 1]).checksum(),
        make_images([0, 1], [1, 3]).checksum(),
        make_images([0, 1, 1], [1, 2, 2]).checksum(),
    }
    assert len(checksums) == 4


def test_a_subset_has_its_own_digests() -> None:
    images = make_images([0, 0, 1, 1])
    early = images.take(np.array([3, 1]))
    known = images.digests
    late = images.take(np.array([3, 1]))
    assert early.digests == late.digests == (known[3], known[1])


@given(
    st.lists(st.integers(0, 2), min_size=6, max_size=60).filter(
        lambda targets: all(targets.count(each) > 1 for each in range(max(targets) + 1))
    ),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_a_split_is_a_stratified_partition(targets: list[int], share: float, seed: int) -> None:
    images = make_images(targets)
    train, test = split_off(images, share, seed)
    assert sorted([*train.rows, *test.rows]) == list(range(len(targets)))
    for label in range(max(targets) + 1):
        total, taken = targets.count(label), int((test.targets == label).sum())
        assert 1 <= taken < total
        assert abs(taken - share * total) <= 1


def test_a_split_depends_on_content_and_seed_alone() -> None:
    images = make_images([0] * 20 + [1] * 20)
    shuffled = images.take(np.random.default_rng(0).permutation(40))
    first, second = split_off(images, 0.25), split_off(shuffled, 0.25)
    assert set(first[1].rows) == set(second[1].rows)
    assert set(first[1].rows) != set(split_off(images, 0.25, seed=1)[1].rows)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=f"test share must lie between 0 and 1, got {share}"):
        split_off(make_images([0, 0]), share)


def test_a_class_of_one_image_cannot_be_split() -> None:
    with pytest.raises(InputError, match=r"class 'b' must have at least two images.*got 1"):
        split_off(make_images([0, 0, 1]), 0.5)


@pytest.mark.parametrize(("train", "test"), [([0, 0], [0, 1]), ([0, 1], [1, 1])])
def test_a_class_on_one_side_only_is_refused(train: list[int], test: list[int]) -> None:
    images = make_images([0, 1])
    split = "train" if 1 not in train else "test"
    name = "b" if 1 not in train else "a"
    with pytest.raises(InputError, match=f"class '{name}' of 's' must have at least one {split}"):
        ImageSource("s", ("a", "b"), images.take(np.array(train)), images.take(np.array(test)))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("a", "a"), "class names must differ from each other, got 'a' 2 x"),
        (("a", ""), "class name must be non-empty UTF-8 text, got ''"),
        (("a", "\udcff"), r"class name must be non-empty UTF-8 text, got '\\udcff'"),
        ((), "must hold at least one class"),
    ],
)
def test_bad_class_names_are_refused(classes: tuple[str, ...], message: str) -> None:
    images = make_images([0, 1])
    with pytest.raises(InputError, match=message):
        ImageSource("s", classes, images, images)


def test_verification_reads_every_image() -> None:
    images = make_images([0, 1])
    calls: list[None] = []
    verify_images(ImageSource("s", ("a", "b"), images, images), lambda: calls.append(None))
    assert len(calls) == 4
