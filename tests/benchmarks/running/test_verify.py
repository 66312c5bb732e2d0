"""Runs with known accuracies against published numbers."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cl_adapters.benchmarks.running.protocols import find_protocol, protocol_names
from cl_adapters.benchmarks.running.verify import (
    differences,
    verify,
)
from cl_adapters.cli import app
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import write_predictions
from tests.benchmarks.running.known_runs import CIFAR, IN21K, ROOT

EXAMPLE = ROOT / "docs" / "examples" / "verify"
PILOT_PIXELS = {
    "image_size": 224, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "interpolation": "bicubic",
    "augment": "crop_flip", "scale": [0.05, 1.0], "resize": 256, "train_interpolation": "bilinear",
}  # fmt: skip


def make_record(strategy: str = "simplecil", seed: int = 1993, **changes: Any) -> RunRecord:
    """A run on CIFAR-100 B0-Inc5 as PILOT does it, written down by hand."""
    names = [f"class {number:02}" for number in range(100)]
    order = np.random.RandomState(1993).permutation(100).tolist()
    fingerprint = {
        "stream": "cifar100",
        "data": {
            "classes": 100,
            "train": {"images": 50_000, "sha256": "synthetic"},
            "test": {"images": 10_000, "sha256": "synthetic"},
        },
        "class_order": "numpy1993",
        "experiences": [5] * 20,
        "backbone": IN21K,
        "weights": "synthetic",
        "pixels": PILOT_PIXELS,
    }
    config = {"strategy": strategy, "seed": seed, "protocol": CIFAR, "options": {}}
    return RunRecord(
        strategy=strategy,
        stream="cifar100",
        seed=seed,
        config={**config, **changes.pop("config", {})},
        fingerprint={**fingerprint, **changes.pop("fingerprint", {})},
        classes=changes.pop("classes", [names[place] for place in order]),
        experiences=[list(range(start, start + 5)) for start in range(0, 100, 5)],
        state="finished",
        experiences_done=20,
        host={"processor": "none: a synthetic example, its predictions are made up"},
        **changes,
    )


def make_predictions(
    last: float, average: float, forgetting: float, per_class: int = 10
) -> pd.DataFrame:
    """Predictions with these three metrics, but for rounding to whole images.

    R[t, i] = top - slope i - drop (t - i) / 19: later experiences are harder, and each loses the
    same with every experience after it. The three unknowns follow from the means of R.
    """
    drop = forgetting * 19 / 10
    slope = (average - last - drop / 4) / 4.75
    top = last + 9.5 * slope + drop / 2
    frames = []
    for trained in range(20):
        target = np.repeat(np.arange(5 * (trained + 1)), per_class)
        place = target // 5
        share = (top - slope * place - drop * (trained - place) / 19) / 100
        is_right = np.diff(np.floor(np.cumsum(share) + 0.5), prepend=0) > 0
        frames.append(
            pd.DataFrame(
                {
                    "experience": trained,
                    "sample": np.arange(len(target)),
                    "target": target,
                    "prediction": np.where(is_right, target, (target + 1) % 5),
                    "confidence": 0.5,
                    "nll": 0.7,
                    "target_experience": place,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def write_run(root: Path, record: RunRecord, *metrics: float) -> Path:
    """A run directory whose last and average accuracy and forgetting are these."""
    folder = root / record.directory
    record.write(folder)
    write_predictions(folder, make_predictions(*metrics))
    return folder


def write_example(root: Path) -> None:
    """Two runs within tolerance, one outside, one with other pixels, one interrupted."""
    write_run(root, make_record("simplecil"), 81.3, 87.6, 6.0)
    write_run(root, make_record("mos", config={"fidelity": "official"}), 89.2, 93.3, 3.9)
    write_run(root, make_record("mos", config={"options": {"epochs": 5}}), 84.0, 90.0, 8.0)
    pixels = {**PILOT_PIXELS, "interpolation": "bilinear", "mean": [0.5, 0.5, 0.5]}
    write_run(root, make_record("lae", fingerprint={"pixels": pixels}), 80.0, 85.0, 5.0)
    record = make_record("sema")
    record.state, record.experiences_done = "interrupted", 3
    record.write(root / record.directory)


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["verify", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@dataclass(frozen=True)
class Fake:
    """A measured run; its metrics are given instead of computed."""

    folder: Path
    record: RunRecord
    values: dict[str, float]


def fake(record: RunRecord, last: float, average: float = 87.5, name: str = "run") -> Fake:
    return Fake(Path(name), record, {"a_last_micro": last, "a_avg_micro": average})


# What makes a run comparable.


def test_a_run_as_the_protocol_says_differs_in_nothing() -> None:
    assert differences(make_record(), find_protocol(CIFAR)) == []


@pytest.mark.parametrize("name", protocol_names())
def test_no_two_protocols_mean_the_same_run_unless_they_share_everything(name: str) -> None:
    protocol = find_protocol(name)
    is_same = not differences(make_record(), protocol)
    assert is_same == (name == CIFAR)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"fingerprint": {"experiences": [10] * 10}}, "experiences: "),
        ({"fingerprint": {"backbone": "vit_base_patch16_224.mae"}}, "backbone: .*mae instead of"),
        ({"config": {"weights": "random"}}, "weights: random instead of"),
        ({"fingerprint": {"data": {"classes": 100}}}, "train images: None instead of 50000"),
        (
            {"fingerprint": {"pixels": {**PILOT_PIXELS, "interpolation": "bilinear"}}},
            "pixels.interpolation: bilinear instead of bicubic",
        ),
        ({"fingerprint": {"pixels": None}}, "pixels.augment: None instead of crop_flip"),
        ({"fingerprint": {"scenario": "shift"}}, "scenario: shift instead of none"),
        (
            {"classes": [f"class {number:02}" for number in range(100)]},
            "class order: another instead of numpy1993",
        ),
        (
            {
                "classes": [f"class {number:02}" for number in range(100)],
                "fingerprint": {"class_order": "natural"},
            },
            "class order: natural instead of numpy1993",
        ),
    ],
)
def test_the_part_that_differs_is_named(changes: dict[str, Any], part: str) -> None:
    found = differences(make_record(**changes), find_protocol(CIFAR))
    assert len(found) >= 1
    assert any(re.match(part, each) for each in found), found


def test_a_large_first_experience_is_part_of_the_protocol() -> None:
    """B50-Inc5, as other papers split CIFAR-100; none of the shipped protocols does."""
    protocol = find_protocol(CIFAR).model_copy(update={"first": 50})
    assert differences(make_record(fingerprint={"experiences": [50] + [5] * 10}), protocol) == []
    (part,) = differences(make_record(), protocol)
    assert part.startswith("experiences: [5, 5")


def test_a_parquet_files_own_numbers_count_as_the_authors() -> None:
    names = [str(number) for number in np.random.RandomState(1993).permutation(100)]
    as_folder, as_table = (
        make_record(classes=names, config={"data": data}) for data in ("cifar/", "cifar.parquet")
    )
    protocol = find_protocol(CIFAR)
    assert differences(as_table, protocol) == []
    assert differences(as_folder, protocol) == ["class order: another instead of numpy1993"]


# What is compared.


def test_gaps_are_differences_of_means_over_seeds() -> None:
    runs = [
        fake(make_record(seed=1993), 81.0, name="a"),
        fake(make_record(seed=1994), 82.0, name="b"),
    ]
    found = verify(runs)
    last = [cell for cell in found.cells if cell.reference.metric == "a_last_micro"]
    assert [(cell.ours, cell.num_seeds) for cell in last] == [(81.5, 2), (81.5, 2)]
    assert sorted(round(cell.gap, 2) for cell in last) == [0.22, 0.24]
    assert found.is_good
    assert found.left_out == ()


@pytest.mark.parametrize(("last", "is_within"), [(81.58, True), (81.59, False), (80.9, False)])
def test_tolerance_is_the_largest_gap(last: float, is_within: bool) -> None:
    found = verify([fake(make_record(), last)])
    cells = {
        cell.is_within
        for cell in found.cells
        if (cell.reference.metric, cell.reference.value) == ("a_last_micro", 81.28)
    }
    assert cells == {is_within}
    assert found.is_good <= is_within


def test_the_verdict_of_an_uncertain_number_decides_nothing() -> None:
    changes: dict[str, Any] = {
        "fingerprint": {"experiences": [10] * 10},
        "config": {"protocol": "pilot-cifar100-b0inc10"},
    }
    record = make_record("lae", **changes)
    found = verify([fake(record, 10.0)])
    assert {cell.verdict for cell in found.cells} == {
        "outside, unverified (ten tasks; weights and kind of accuracy are not stated)"
    }
    assert found.is_good


def test_options_make_another_row_and_seeds_do_not() -> None:
    runs = [
        fake(make_record("mos", seed), 89.0, name=f"{seed} {epochs}")
        if epochs is None
        else fake(
            make_record("mos", seed, config={"options": {"epochs": epochs}}),
            80.0,
            name=f"{seed} {epochs}",
        )
        for seed in (1, 2)
        for epochs in (None, 5)
    ]
    found = verify(runs)
    assert {(cell.label, cell.num_seeds) for cell in found.cells} == {
        ("mos", 2), ("mos (epochs=5)", 2),
    }  # fmt: skip


def test_what_is_not_compared_is_listed_with_its_reason() -> None:
    other = {"fingerprint": {"experiences": [10] * 10}}
    runs = [
        fake(make_record(), 81.0, name="a good one"),
        fake(make_record(), 81.0, name="b double"),
        fake(make_record("joint"), 90.0, name="c unpublished"),
        fake(make_record(**other), 81.0, name="d other splits"),
        fake(make_record(seed=7, **other, config={"protocol": None}), 81.0, name="e unnamed"),
    ]
    found = verify(runs)
    assert {cell.num_seeds for cell in found.cells} == {1}
    reasons = {folder.name: reason for folder, reason in found.left_out}
    assert set(reasons) == {"b double", "c unpublished", "d other splits"}
    assert reasons["b double"] == "same protocol, method and seed as a good one"
    assert reasons["c unpublished"] == f"no published result of joint for {CIFAR}"
    assert reasons["d other splits"].startswith(f"is not as its protocol {CIFAR}: experiences: [10")


def test_a_run_of_no_protocol_is_told_the_nearest() -> None:
    pixels = {**PILOT_PIXELS, "image_size": 96}
    unnamed = make_record(fingerprint={"pixels": pixels}, config={"protocol": None})
    digits = make_record(classes=["0", "1"], config={"protocol": None})
    reasons = [verify([fake(record, 50.0)]).left_out[0][1] for record in (unnamed, digits)]
    part = "pixels.image_size: 96 instead of 224"
    assert reasons[0] == f"follows no protocol; the nearest, {CIFAR}, differs in {part}"
    assert reasons[1] == "follows no protocol"


# The command.


def test_the_shipped_example_prints_a_full_table(tmp_path: Path) -> None:
    assert sum(path.stat().st_size for path in EXAMPLE.rglob("*") if path.is_file()) < 100_000
    code, text = call(EXAMPLE)
    assert code == 1, "one of its runs is outside on purpose"
    header = next(line for line in text.splitlines() if line.startswith("protocol"))
    assert header.split() == [
        "protocol", "weights", "method", "metric", "ours", "seeds", "theirs", "gap", "tolerance",
        "verdict", "source",
    ]  # fmt: skip
    rows = [line for line in text.splitlines() if line.startswith(CIFAR)]
    # SimpleCIL: a log and a table, two metrics each. MOS: the same and forgetting, in two variants.
    assert len(rows) == 4 + 2 * 5
    assert all("within" in row for row in rows if "simplecil" in row or "official" in row)
    assert all("outside" in row for row in rows if "epochs=5" in row)
    assert "pixels.interpolation: bilinear instead of bicubic" in text
    assert "is interrupted" in text


def test_the_shipped_example_is_what_this_file_writes(tmp_path: Path) -> None:
    write_example(tmp_path)
    for path in tmp_path.rglob("*.*"):
        shipped = EXAMPLE / path.relative_to(tmp_path)
        if path.suffix == ".parquet":
            assert pd.read_parquet(path).equals(pd.read_parquet(shipped))
        elif path.is_file():
            assert path.read_bytes() == shipped.read_bytes()


def test_good_runs_end_in_code_0_and_bad_input_in_2(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "good", make_record(), 81.3, 87.6, 6.0)
    code, text = call(tmp_path / "good")
    assert code == 0, text
    assert call(tmp_path / "nowhere")[0] == 2
    (tmp_path / "empty").mkdir()
    assert call(tmp_path / "empty")[0] == 2
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "run.json").write_text("{}", "utf-8")
    code, text = call(tmp_path / "broken")
    assert code == 2
    assert "is broken" in text
    assert "must hold a finished run with a published result" in text
