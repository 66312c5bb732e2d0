"""A window of new classes is nothing strange to `class_mmd`, one of another kind of images is."""

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.shift.class_mmd import ClassSplitDiscrepancy
from cl_adapters.shift.mmd import MaximumMeanDiscrepancy

DIM = 6


def kind(seed: int, classes: range, each: int, *, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """Returns images of classes whose means scatter around one place."""
    rows, labels = [], []
    for label in classes:
        generator = torch.Generator().manual_seed(1000 * seed + label)
        mean = shift + torch.randn(DIM, generator=generator)
        rows.append(mean + 0.5 * torch.randn(each, DIM, generator=generator))
        labels += [label] * each
    return torch.cat(rows), torch.tensor(labels)


def fitted(classes: int = 8, each: int = 25, **options: float) -> ClassSplitDiscrepancy:
    detector = ClassSplitDiscrepancy(DIM, **options)  # type: ignore[arg-type]
    detector.fit_labelled(*kind(0, range(classes), each))
    return detector


def test_new_classes_are_certain_to_differ_and_no_change() -> None:
    detector, plain = fitted(), MaximumMeanDiscrepancy(DIM)
    plain.fit(kind(0, range(8), 25)[0])
    for start in range(8, 40, 8):
        new, _ = kind(0, range(start, start + 8), 16)
        assert plain.check(new).fired
        assert not detector.check(new).fired
    other, _ = kind(0, range(40, 48), 16, shift=4.0)
    assert plain.check(other).fired
    assert detector.check(other).fired


@pytest.mark.parametrize(("classes", "size"), [(4, 2), (5, 2)])
def test_the_bound_is_a_plain_loop_over_all_halves(classes: int, size: int) -> None:
    features, labels = kind(3, range(classes), 6)
    detector = ClassSplitDiscrepancy(DIM, margin=1.25)
    detector.fit_labelled(features, labels)
    window, _ = kind(3, range(20, 24), 5)
    both = [*features, *window]
    squared = [[float(((a - b) ** 2).sum()) for b in both] for a in both]
    width = float(torch.tensor(squared).median())

    def discrepancy(left: list[int], right: list[int]) -> float:
        def mean(one: list[int], other: list[int]) -> float:
            found = [math.exp(-squared[a][b] / width) for a in one for b in other]
            return sum(found) / len(found)

        return mean(left, left) + mean(right, right) - 2 * mean(left, right)

    known = range(len(features))
    largest = max(
        discrepancy(
            [row for row in known if int(labels[row]) in half],
            [row for row in known if int(labels[row]) not in half],
        )
        for half in combinations(range(classes), size)
    )
    expected = 1.25 * largest * (2 / classes) / (1 / size + 1 / (classes - size))
    verdict = detector.check(window)
    assert verdict.threshold == pytest.approx(expected, rel=1e-4)
    rows = list(range(len(features), len(both)))
    assert verdict.score == pytest.approx(discrepancy(list(known), rows), rel=1e-4)


def test_without_labels_or_with_two_classes_it_is_mmd() -> None:
    features, labels = kind(1, range(2), 20)
    window, _ = kind(1, range(5, 7), 20)
    plain, told, untold = (
        MaximumMeanDiscrepancy(DIM), ClassSplitDiscrepancy(DIM), fitted()
    )  # fmt: skip
    plain.fit(features)
    told.fit_labelled(features, labels)
    untold.fit(features)  # which forgets the classes that it knew
    assert told.check(window) == untold.check(window) == plain.check(window)


def test_many_classes_are_split_by_chance_and_what_is_kept_has_its_class() -> None:
    detector, other = fitted(40, 20, seed=4), ClassSplitDiscrepancy(DIM)
    features, labels = kind(0, range(40), 20)
    assert int(detector.count) == 300
    for row, label in zip(detector.kept[::30], detector.labels[::30], strict=True):
        assert int(labels[(features == row).all(dim=1)]) == int(label)
    window, _ = kind(0, range(40, 50), 10)
    verdict = detector.check(window)
    assert verdict == detector.check(window)
    other.load_state_dict(detector.state_dict())
    assert other.check(window).score == verdict.score


def test_what_does_not_fit_is_refused() -> None:
    features, labels = kind(0, range(4), 5)
    with pytest.raises(InputError, match=r"there must be a label for each of 20 images, .*\(3,\)"):
        ClassSplitDiscrepancy(DIM).fit_labelled(features, labels[:3])
    with pytest.raises(InputError, match="`margin` must be above 0, got 0"):
        ClassSplitDiscrepancy(DIM, margin=0)
