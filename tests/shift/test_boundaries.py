"""The boundary finder: causal, independent of batches, equal to a plain loop; bad use refused."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.shift import DETECTORS, Detector, Verdict
from cl_adapters.shift.boundaries import Boundary, BoundaryFinder


class MeanShift(Detector):
    """Fires where the mean of a window is further than 1 from that of the reference."""

    min_samples = 2

    def fit(self, features: Tensor) -> None:
        self.known = self.checked(features, self.min_samples).mean()

    def check(self, features: Tensor) -> Verdict:
        return Verdict(float((self.checked(features).mean() - self.known).abs()), 1.0)

    def reset(self) -> None:
        del self.known


def make_finder(**options: int) -> BoundaryFinder:
    return BoundaryFinder(lambda _: MeanShift(1), **options)


def as_features(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def by_plain_loop(
    values: list[float], reference: int, window: int, patience: int, most: int | None
) -> list[tuple[int, int, bool]]:
    """Start, announcement and whether forced, from the definition: segment after segment."""
    found, start = [], 0
    while True:
        known = sum(values[start : start + reference]) / reference
        strange, end, announced = 0, start + reference, False
        if end > len(values):
            return found
        while not announced:
            if end + window > len(values):
                return found
            if most is not None and end - start + window > most:
                found.append((end, end + window, True))
                start, announced = end, True
            else:
                mean = sum(values[end : end + window]) / window
                strange = strange + 1 if abs(mean - known) > 1 else 0
                end += window
                if strange == patience:
                    start, announced = end - patience * window, True
                    found.append((start, end, False))


levels = st.lists(
    st.tuples(st.sampled_from([0.0, 3.0, 7.0]), st.integers(1, 12)), min_size=1, max_size=8
)
sizes = st.fixed_dictionaries(
    {"reference": st.integers(2, 6), "window": st.integers(1, 4), "patience": st.integers(1, 3)}
)


def spread(stays: list[tuple[float, int]]) -> list[float]:
    return [level for level, length in stays for _ in range(length)]


@settings(max_examples=200)
@given(levels, sizes, st.integers(0, 8) | st.none())
def test_boundaries_are_those_of_a_plain_loop(
    stays: list[tuple[float, int]], sizes: dict[str, int], room: int | None
) -> None:
    values = spread(stays)
    most = None if room is None else sizes["reference"] + sizes["window"] + room
    finder = make_finder(**sizes, max_samples=most)  # type: ignore[arg-type]
    found = finder.observe(as_features(values))
    assert [(each.start, each.announced, each.is_forced) for each in found] == by_plain_loop(
        values, sizes["reference"], sizes["window"], sizes["patience"], most
    )
    lengths = [high - low for low, high in pairwise([0, *(each.start for each in found)])]
    if found:
        assert min(lengths) >= sizes["reference"]
        assert len(values) - found[-1].start >= sizes["window"], "the last segment is no scrap"
    assert most is None or all(length <= most for length in lengths)


@settings(max_examples=100)
@given(levels, sizes, st.data())
def test_batches_do_not_matter_and_neither_does_the_future(
    stays: list[tuple[float, int]], sizes: dict[str, int], data: st.DataObject
) -> None:
    features = as_features(spread(stays))
    whole = make_finder(**sizes).observe(features)
    cuts = data.draw(st.lists(st.integers(0, len(features)), max_size=5).map(sorted))
    finder = make_finder(**sizes)
    parts = [finder.observe(part) for part in torch.tensor_split(features, cuts)]
    assert [each for part in parts for each in part] == whole
    # Cut off after n samples, the stream has announced what it announced by then, and no more.
    n = data.draw(st.integers(0, len(features)))
    past = make_finder(**sizes).observe(features[:n])
    assert past == [each for each in whole if each.announced <= n]


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_every_detector_finds_a_clear_change_and_nothing_else(name: str) -> None:
    features = torch.randn(400, 6, generator=torch.Generator().manual_seed(1))
    features[200:] += 4
    kind = DETECTORS[name]

    def find(rows: Tensor) -> list[Boundary]:
        finder = BoundaryFinder(
            lambda segment: kind(6, false_alarm=0.002, seed=segment), reference=96, window=32
        )
        return [each for part in rows.split(50) for each in finder.observe(part)]

    found = find(features)
    assert [each.start for each in found] == [192], "the window that holds the change"
    assert found[0].announced == 224
    assert found[0].score is not None
    assert found[0].threshold is not None
    assert found[0].score > found[0].threshold
    assert find(features) == found, "the same stream, the same boundaries"
    assert find(features[:224]) == found, "nothing that comes later has a part in it"
    assert find(features[:223]) == []


def test_input_is_neither_changed_nor_kept() -> None:
    finder = make_finder(reference=2, window=2)
    features = as_features([0, 0, 0])
    finder.observe(features)
    features += 100
    assert finder.observe(as_features([0, 0, 0])) == []
    assert features.flatten().tolist() == [100, 100, 100]


def test_bad_use_ends_in_one_sentence() -> None:
    with pytest.raises(InputError, match="`window` must be a positive integer, got 0"):
        make_finder(window=0)
    with pytest.raises(InputError, match="hold the reference and a window, 128 samples, got 127"):
        make_finder(max_samples=127)
    with pytest.raises(InputError, match="must see at least 2 samples, got 1"):
        make_finder(reference=1).observe(as_features([0]))
    finder = make_finder()
    with pytest.raises(InputError, match=r"shape \(n, D\), got \(3,\)"):
        finder.observe(torch.zeros(3))
    with pytest.raises(InputError, match="must be finite, got NaN or infinity"):
        finder.observe(torch.full((3, 1), torch.nan))
    finder.observe(torch.zeros(3, 1))
    with pytest.raises(InputError, match=r"shape \(n, 1\), got \(3, 2\)"):
        finder.observe(torch.zeros(3, 2))
