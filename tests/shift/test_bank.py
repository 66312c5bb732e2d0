"""What a block's detectors say together: the best is the one to which the data is least strange."""

from hypothesis import given
from hypothesis import strategies as st

from cl_adapters.shift.bank import Verdicts
from cl_adapters.shift.base import Verdict

numbers = st.floats(-1e3, 1e3, allow_nan=False)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6))
def test_the_best_is_nearest_below_its_own_threshold(pairs: list[tuple[float, float]]) -> None:
    each = tuple(Verdict(score, limit) for score, limit in pairs)
    verdicts = Verdicts(7, each)
    gaps = [score - limit for score, limit in pairs]
    assert gaps[verdicts.best] == min(gaps)
    assert (verdicts.score, verdicts.threshold) == pairs[verdicts.best]
    assert verdicts.fired == all(score > limit for score, limit in pairs)


def test_an_event_says_what_was_found() -> None:
    found = Verdicts(7, (Verdict(5.0, 1.0), Verdict(2.0, 4.0))).describe()
    assert found == {
        "images": 7, "scores": [5.0, 2.0], "thresholds": [1.0, 4.0], "adapter": 1,
        "score": 2.0, "threshold": 4.0, "fired": False,
    }  # fmt: skip
