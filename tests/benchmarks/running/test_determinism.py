"""One seed, one result: with 1 and 2 threads, with and without the cache, straight or interrupted."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.checkpoints import ExperienceCheckpoint
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.cache.feature_cache import open_cache
from cl_adapters.records.tables import read_predictions
from tests.benchmarks.killable import OPTIONS, SOURCE, config

# The seconds that each takes; the others run with `make slow`.
QUICK = ("simplecil",)
STRATEGIES = [
    pytest.param(each, marks=[] if each in QUICK else [pytest.mark.slow]) for each in OPTIONS
]
# Points that are kept before the next stop; without training there is one an experience.
STOPPED_AT_EVERY = {"aper": 3, "fecam": 1, "loranpac": 1, "ranpac": 3}


def predictions(
    strategy: str, out: Path, cache: Path | None = None, **changes: Any
) -> pd.DataFrame:
    recipe = config(strategy, augment="none", **changes)
    kept = open_cache("off" if cache is None else str(cache))
    prepared = prepare(recipe, source=SOURCE, cache=kept)
    return read_predictions(runner.run(prepared, out, checkpoint_minutes=10))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", OPTIONS)
def test_a_second_thread_changes_no_prediction(strategy: str, tmp_path: Path) -> None:
    """Probabilities may differ in the last digits, as sums in another order do; no answer does."""
    one, two = (predictions(strategy, tmp_path / str(each), threads=each) for each in (1, 2))
    assert two["prediction"].equals(one["prediction"])
    assert (two["confidence"] - one["confidence"]).abs().max() < 1e-3


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_memo_and_interruptions_change_no_bit(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predictions(strategy, tmp_path / "plain")
    for name in ("cache filled", "cache read"):
        found = predictions(strategy, tmp_path / name, cache=tmp_path / "cache")
        pd.testing.assert_frame_equal(found, expected, check_exact=True)

    keep, kept = ExperienceCheckpoint._keep, [0]

    def stop(self: ExperienceCheckpoint, *given: Any) -> None:
        keep(self, *given)
        kept[0] += 1
        if kept[0] % STOPPED_AT_EVERY.get(strategy, 4) == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(ExperienceCheckpoint, "_keep", stop)
    monkeypatch.setattr(ExperienceCheckpoint, "is_due", lambda _: True)
    stops = 0
    while True:
        try:
            found = predictions(strategy, tmp_path / "stopped", cache=tmp_path / "cache")
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 2
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
