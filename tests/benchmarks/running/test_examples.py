"""Which test images a finished run keeps a picture of, against plain loops."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cl_adapters.benchmarks.data.sources import array_source
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.examples import (
    MOST_CLASSES,
    MOST_OF_A_CLASS,
    MOST_PIXELS,
    choose_examples,
    draw_examples,
)
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.records.tables import EXAMPLE_COLUMNS, read_examples, read_predictions
from tests.reports.conftest import make_predictions


def _chosen_by_loops(frame: pd.DataFrame) -> set[tuple[int, int]]:
    rows = [
        row for row in frame.to_dict("records") if row["target_experience"] <= row["experience"]
    ]
    last = max(row["experience"] for row in rows)
    fall = {}
    for target in {row["target"] for row in rows}:
        by_time: dict[int, list[bool]] = {}
        for row in rows:
            if row["target"] == target:
                by_time.setdefault(row["experience"], []).append(row["prediction"] == target)
        shares = {t: sum(answers) / len(answers) for t, answers in by_time.items()}
        fall[target] = max(shares.values()) - shares[last]
    worst = sorted((t for t in fall if fall[t] > 0), key=lambda t: (-fall[t], t))[:MOST_CLASSES]
    kept = set()
    for target in worst:
        lost = []
        for row in rows:
            if row["experience"] == last and row["target"] == target != row["prediction"]:
                past = [
                    (old["experience"], old["confidence"])
                    for old in rows
                    if old["sample"] == row["sample"] and old["prediction"] == old["target"]
                ]
                if past:
                    lost.append((-max(past)[1], row["sample"]))
        kept |= {(target, sample) for _, sample in sorted(lost)[:MOST_OF_A_CLASS]}
    return kept


def test_the_worst_forgotten_classes_are_chosen() -> None:
    frame = make_predictions([4, 3, 4], 10, 0.3, seed=2)
    chosen = choose_examples(frame)
    assert {(row.target, row.sample) for row in chosen.itertuples()} == _chosen_by_loops(frame)
    assert len(chosen) <= MOST_CLASSES * MOST_OF_A_CLASS
    assert (chosen["prediction"] != chosen["target"]).all()
    assert (chosen["right_experience"] < 2).all()


def test_nothing_is_chosen_where_nothing_was_forgotten() -> None:
    frame = make_predictions([2, 2], 5, 0.0, seed=0)
    frame["prediction"] = frame["target"]
    assert choose_examples(frame).empty
    assert draw_examples(frame, lambda *_: np.zeros((2, 2, 3), np.uint8)).empty


def test_a_run_keeps_small_pictures_of_its_own_test_images(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    targets = np.repeat(np.arange(4), 6)
    pixels = generator.integers(0, 255, (24, 100, 70, 3), dtype=np.uint8)
    source = array_source("noise", (pixels, targets), (pixels, targets))
    values = {
        "strategy": "finetune", "increment": 2, "options": {"epochs": 2, "batch_size": 8, "lr": 0.01},
        "backbone": "test_vit", "weights": "random", "image_size": 32,
    }  # fmt: skip
    prepared = prepare(RunConfig.parse(values), source=source)
    folder = runner.run(prepared, tmp_path)
    kept, predictions = read_examples(folder), read_predictions(folder)
    assert list(kept.columns) == list(EXAMPLE_COLUMNS)
    assert {(r.target, r.sample) for r in kept.itertuples()} == _chosen_by_loops(predictions)
    assert len(kept)  # a head that only knows the last two classes has forgotten the others
    for row in kept.itertuples():
        image = Image.open(io.BytesIO(row.image))
        assert max(image.size) == MOST_PIXELS
        whole = Image.fromarray(source.test.read(row.sample))
        whole.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.BOX)
        assert image.tobytes() == whole.tobytes()
    assert (folder / "examples.parquet").stat().st_size < 300_000
