"""The bench: what it compares, and one whole run of it on a tiny ViT."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cl_adapters.benchmarks.bench import (
    Bench,
    BenchSettings,
    Metric,
    best_of,
    compare,
    read_metrics,
    run_bench,
)
from cl_adapters.benchmarks.bench.memory import peak_of_a_run
from cl_adapters.benchmarks.bench.track import Track
from cl_adapters.benchmarks.maintenance.bench_whole import passes_of_a_run
from cl_adapters.benchmarks.running.memory import peak_bytes
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.errors import InputError

REFERENCE = Path(__file__).parents[3] / "benchmarks" / "reference" / "speed.json"


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


def test_what_stays_behind_a_bound_says_so() -> None:
    bounded = Metric("gain", 2.9, 10.0, "more", bound=3)
    assert [each.verdict for each in (bounded, metric("a", 2.0))] == ["no, at best 3", "yes"]


def test_the_best_of_several_runs_counts() -> None:
    runs = [
        [metric("gain", gain), metric("floors", floors, "less")]
        for gain, floors in ((2.0, 1.3), (3.0, 1.5), (1.0, 1.4))
    ]
    assert [(each.name, each.value) for each in best_of(runs)] == [("gain", 3.0), ("floors", 1.3)]


def test_ratios_of_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold ratios of the same backbone, 'vit_tiny"):
        run_bench(["simplecil"], {}, 1, tmp_path / "new.json", REFERENCE)
    same = {"backbone": "test_vit", "image_size": 32}
    with pytest.raises(InputError, match=r"must hold ratios of the same train, 8, got 48"):
        run_bench(["simplecil"], {**same, "train": 8}, 1, tmp_path / "new.json", REFERENCE)


@pytest.mark.slow
@pytest.mark.alone
def test_no_fast_path_was_lost_and_everything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    settings = {"backbone": "test_vit", "image_size": 32}
    names = ["simplecil", "sema", "mos", "lae"]
    run_bench(names, settings, 1, out, REFERENCE)  # raises if fast and plain disagree
    # Processors differ in what is cheap for them; a fast path that is gone costs more than a third.
    assert compare(read_metrics(out), read_metrics(REFERENCE), 1 / 3) == []
    assert {each.name for each in read_metrics(out)} == {
        each.name for each in read_metrics(REFERENCE)
    }
    phases = {(row["strategy"], row["phase"]) for row in json.loads(out.read_text())["rows"]}
    assert phases >= {
        ("sema", "functional"),
        ("sema", "descriptor"),
        ("lae", "freeze"),
        ("mos", "alignment"),
        ("simplecil", "evaluation"),
    }


@pytest.mark.slow
def test_steps_of_first_sessions_and_of_whole_networks_have_a_floor_of_their_own() -> None:
    bench = Bench(BenchSettings(backbone="test_vit", image_size=32))
    bench.run(["aper", "ease", "slca"], lengths=(5,), machine=False)
    assert [each.name for each in bench.metrics] == [
        "training step of aper, floors",
        "training step of ease, floors",
        "evaluation of ease, 10 over 5 experiences",
        "training step of slca, floors",
    ]
    assert all(0.1 < each.value < 10 for each in bench.metrics)


def test_a_floor_leaves_the_network_frozen() -> None:
    track = Track(BenchSettings(backbone="test_vit", image_size=32))
    assert track.floor(4) > 0 < track.floor(4, is_released=True)
    weights = list(track._network().parameters())
    assert not any(each.requires_grad or each.grad is not None for each in weights)


@pytest.mark.slow
def test_a_loss_ends_in_a_sentence_for_each(tmp_path: Path) -> None:
    stored = json.loads(REFERENCE.read_text())
    for each in stored["metrics"]:
        each["value"] *= 3 if each["better"] == "more" else 1 / 3
    (tmp_path / "old.json").write_text(json.dumps(stored))
    settings = {"backbone": "test_vit", "image_size": 32}
    found = run_bench(["simplecil"], settings, 1, tmp_path / "new.json", tmp_path / "old.json")
    assert len(found.losses) == 2
    assert "second run of simplecil, first over second was" in found.losses[1]


@pytest.mark.slow
def test_the_peak_of_a_process_is_its_own() -> None:
    held = np.ones(200 * 2**20, np.uint8)  # by this process, which starts the other
    program = "import sys, torch; from cl_adapters.benchmarks.running.memory import peak_bytes; "
    program += "held = b'1' * 2**27; sys.stdout.write(str(peak_bytes(torch.device('cpu'))))"
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    mine = peak_bytes(torch.device("cpu"))
    assert mine > held.nbytes
    assert 2**27 < int(done.stdout) < mine


@pytest.mark.slow
def test_a_whole_run_counts_its_images_and_takes_a_pass_at_least() -> None:
    config = RunConfig(
        strategy="simplecil", backbone="test_vit", weights="random", image_size=32, increment=5
    )
    images, passes = passes_of_a_run(config)
    assert images == 1797, "scikit-learn's digits"
    assert 0.9 < passes < 100


@pytest.mark.slow
def test_peak_memory_is_that_of_a_process_of_its_own() -> None:
    held = torch.ones(2**29)  # 2 GiB here must not count there
    peak = peak_of_a_run("simplecil", "test_vit", 32, "fp32")
    assert 60_000 * 32 * 32 * 3 < peak < held.nbytes
