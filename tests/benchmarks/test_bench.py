"""The bench: what it compares, and one whole run of it on a tiny ViT."""

import json
from pathlib import Path

import pytest

from cl_adapters.benchmarks.bench import (
    Bench,
    BenchSettings,
    Metric,
    compare,
    read_metrics,
    run_bench,
)
from cl_adapters.errors import InputError


def metric(name: str, value: float, better: str = "more", *, is_ratio: bool = True) -> Metric:
    return Metric(name, value, 1.0, better, is_ratio)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new", "better", "loses"),
    [
        (8.0, 7.0, "more", False),
        (8.0, 6.7, "more", True),
        (8.0, 20.0, "more", False),
        (1.0, 1.1, "less", False),
        (1.0, 1.2, "less", True),
        (1.0, 0.1, "less", False),
    ],
)
def test_a_loss_of_more_than_15_per_cent_is_told(
    old: float, new: float, better: str, loses: bool
) -> None:
    found = compare([metric("gain", new, better)], [metric("gain", old, better)])
    assert bool(found) == loses


def test_times_and_new_measures_are_not_compared() -> None:
    now = [metric("s", 9.0, "less", is_ratio=False), metric("new", 0.1)]
    assert compare(now, [metric("s", 1.0, "less", is_ratio=False)]) == []


def test_a_target_is_reached_from_the_right_side() -> None:
    assert [metric("a", value).is_reached for value in (0.9, 1.0)] == [False, True]
    assert [metric("a", value, "less").is_reached for value in (1.0, 1.1)] == [True, False]


def test_a_file_without_metrics_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("{}")
    with pytest.raises(InputError, match=r"old.json' must hold what `bench` wrote, got"):
        read_metrics(tmp_path / "old.json")
    with pytest.raises(InputError, match=r"strategy.*simplecli"):
        run_bench(["simplecli"], {}, 1, tmp_path / "new.json", None)


@pytest.mark.slow
def test_fast_and_plain_agree_and_everything_is_written(tmp_path: Path) -> None:
    settings = BenchSettings(backbone="test_vit", image_size=32, train=24, test=6)
    bench = Bench(settings)
    bench.run(["simplecil", "sema", "mos", "lae"], lengths=(5,))  # raises if they disagree
    bench.write(tmp_path / "bench.json")
    stored = json.loads((tmp_path / "bench.json").read_text())
    phases = {(row["strategy"], row["phase"]) for row in stored["rows"]}
    assert phases >= {
        ("sema", "functional"),
        ("sema", "descriptor"),
        ("lae", "freeze"),
        ("mos", "alignment"),
        ("simplecil", "evaluation"),
    }
    assert read_metrics(tmp_path / "bench.json") == bench.metrics
    values = {each.name: each.value for each in bench.metrics}
    assert values["second run of simplecil, first over second"] > 2
    assert values["evaluation of mos at 20 experiences, exhaustive over lazy"] > 2
    assert values["passes of mos at 20 experiences"] < 4
    assert all(value > 0 for value in values.values())
