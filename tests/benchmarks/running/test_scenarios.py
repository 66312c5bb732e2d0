"""Runs of scenarios beside class, domain and shift: every method, resuming, reports."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.sources import digits_source, open_source
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.scenarios import plan_stream
from cl_adapters.cli import app
from cl_adapters.errors import InputError
from cl_adapters.records.events import read_events
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions
from cl_adapters.reports.groups import group_runs
from cl_adapters.reports.load import load_runs
from tests.benchmarks.conftest import InterruptedAt
from tests.marks import by_default

DATA = Path(__file__).parents[4] / "shared" / "data"


# --- recipes, runs and reports ------------------------------------------------------------------

NAMES = ["blurry", "long_tailed", "repetition", "class_domain"]
EVERY = [*NAMES, "class", "domain", "shift"]


@pytest.fixture(scope="module")
def digits() -> ImageSource:
    """Twelve train images of each of the first six digits, half of them in another domain."""
    source = digits_source()
    parts = []
    for images, number in ((source.train, 12), (source.test, 4)):
        rows = [np.flatnonzero(images.targets == label)[:number] for label in range(6)]
        names = np.array(["ink", "pencil"] * (3 * number))
        parts.append(
            replace(images.take(np.concatenate(rows)), domains=names, classes=tuple("012345"))
        )
    return ImageSource("digits", tuple("012345"), *parts)


def config(scenario: str, strategy: str = "simplecil", **changes: Any) -> RunConfig:
    options: dict[str, Any] = {} if strategy == "simplecil" else {"epochs": 2, "batch_size": 8}
    options |= {"freeze_epochs": 1} if strategy == "lae" else {}
    values = {
        "strategy": strategy, "scenario": scenario, "backbone": "test_vit", "weights": "random",
        "image_size": 32, "options": options,
    }  # fmt: skip
    values |= {"increment": 2} if scenario not in ("repetition", "domain", "shift") else {}
    values |= {"num_experiences": 3} if scenario == "repetition" else {}
    values |= {"num_experiences": 4, "changes": 2, "recurring": 1} if scenario == "shift" else {}
    values |= {"imbalance": 2} if scenario == "long_tailed" else {}
    values |= {"repeat": 0.5} if scenario == "repetition" else {}
    values |= {"blur": 0.25} if scenario == "blurry" else {}
    return RunConfig.parse({**values, **changes})


# Each scenario with one method.
ALWAYS = [
    ("simplecil", "class"), ("simplecil", "domain"), ("simplecil", "class_domain"),
    ("sema", "blurry"), ("lae", "long_tailed"), ("mos", "repetition"),
]  # fmt: skip
ALL = [
    ("simplecil", "class"), ("simplecil", "domain"),
    *product(["simplecil", "sema", "lae", "mos"], NAMES),
]  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "scenario"),
    by_default(ALL, ALWAYS),
)
def test_every_method_runs_on_every_scenario(
    digits: ImageSource, tmp_path: Path, strategy: str, scenario: str
) -> None:
    folder = runner.run(prepare(config(scenario, strategy), source=digits), tmp_path)
    record = RunRecord.read(folder)
    stream = "digits" if scenario == "class" else f"digits-{scenario}"
    assert (record.stream, record.state) == (stream, "finished")
    rows = read_predictions(folder)
    last = rows[rows["experience"] == len(record.experiences) - 1]
    assert sorted(last["sample"]) == list(range(24)), "each test image once"
    RunConfig.parse(record.config)  # the recipe that repeats the run


@pytest.mark.parametrize(
    ("strategy", "scenario"),
    [
        pytest.param("mos", "repetition", marks=pytest.mark.slow),
        ("sema", "blurry"),
        pytest.param("lae", "blurry", marks=pytest.mark.slow),
    ],
)
def test_runs_resume_where_classes_return(
    digits: ImageSource,
    tmp_path: Path,
    interrupted_at: InterruptedAt,
    strategy: str,
    scenario: str,
) -> None:
    straight = runner.run(prepare(config(scenario, strategy), source=digits), tmp_path / "straight")
    with interrupted_at(2):
        runner.run(prepare(config(scenario, strategy), source=digits), tmp_path / "killed")
    again = runner.run(prepare(config(scenario, strategy), source=digits), tmp_path / "killed")
    pd.testing.assert_frame_equal(
        read_predictions(again), read_predictions(straight), check_exact=True
    )


@pytest.mark.parametrize("scenario", ["blurry", "repetition"])
def test_class_means_do_not_mind_when_images_come(
    digits: ImageSource, tmp_path: Path, scenario: str
) -> None:
    """SimpleCIL at the end has seen every image once, whatever the stream was."""
    last = []
    for name in (scenario, "class"):
        folder = runner.run(prepare(config(name), source=digits), tmp_path)
        rows = read_predictions(folder)
        rows = rows[rows["experience"] == 2].set_index("sample").sort_index()
        last.append(rows["prediction"].tolist())
    assert last[0] == last[1]


@pytest.fixture(scope="module")
def two_seeds(digits: ImageSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every scenario with two seeds."""
    out = tmp_path_factory.mktemp("seeds")
    for scenario in NAMES:
        for seed in (0, 1):
            runner.run(prepare(config(scenario, seed=seed), source=digits), out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("scenario", NAMES)
def test_reports_put_seeds_into_one_group_and_count_accuracies(
    two_seeds: Path, scenario: str
) -> None:
    runs = load_runs([two_seeds / f"digits-{scenario}"]).finished
    records = [run.record for run in runs]
    assert records[0].fingerprint == records[1].fingerprint
    assert records[0].experiences == [[0, 1], [2, 3], [4, 5]] * (1 + (scenario == "class_domain"))
    (group,) = group_runs(runs)
    assert not group.notes
    for run in runs:
        rows = read_predictions(run.folder).to_dict("records")
        for t in range(len(run.matrix)):
            for i in range(t + 1):
                cell = [r for r in rows if (r["experience"], r["target_experience"]) == (t, i)]
                assert {row["target"] for row in cell} == set(run.record.experiences[i])
                hits = sum(row["target"] == row["prediction"] for row in cell)
                assert run.matrix[t, i] == pytest.approx(100 * hits / len(cell))


@pytest.mark.parametrize("names", [["class_domain"], pytest.param(NAMES, marks=pytest.mark.slow)])
def test_one_report_holds_scenarios(two_seeds: Path, tmp_path: Path, names: list[str]) -> None:
    folders = [str(two_seeds / f"digits-{scenario}") for scenario in names]
    result = CliRunner().invoke(
        app, ["report", *folders, "--out", str(tmp_path), "--formats", "svg"]
    )
    assert result.exit_code == 0, result.output
    assert all(f"digits-{scenario}" in result.output for scenario in names)
    assert (tmp_path / "report.html").exists()


def test_the_true_changes_of_domains_are_recorded(digits: ImageSource, tmp_path: Path) -> None:
    folder = runner.run(prepare(config("class_domain"), source=digits), tmp_path)
    events = [event for event in read_events(folder) if event.event == "domain"]
    assert [event.domain for event in events] == ["ink"] * 3 + ["pencil"] * 3
    assert [event.changed for event in events] == [False] * 3 + [True] + [False] * 2


@pytest.mark.parametrize(
    ("scenario", "changes", "message"),
    [
        ("blurry", {"blur": 1}, r"blur must lie in \[0, 1\), got 1.0"),
        ("blurry", {"blur": -0.1}, r"blur must lie in \[0, 1\), got -0.1"),
        ("blurry", {"increment": 6}, "blur must be 0 in a stream of one experience, got 0.25"),
        ("blurry", {"blur": 0.08}, "blur must let .* at least 1 / 12 for class '0', got 0.08"),
        ("long_tailed", {"imbalance": 0.5}, "imbalance must be at least 1, got 0.5"),
        ("long_tailed", {"imbalance": 13}, "imbalance must leave .* at most the 12 images"),
        ("long_tailed", {"head_images": 0}, "head_images must be at least 1, got 0"),
        ("long_tailed", {"head_images": 13}, "class '.' must have the 13 train images .*, got 12"),
        ("long_tailed", {"tail": "sorted"}, "recipe key `tail`: .*'shuffled', got 'sorted'"),
        ("repetition", {"num_experiences": 7}, "from 1 to the number of classes, 6, got 7"),
        ("repetition", {"num_experiences": 0}, "from 1 to the number of classes, 6, got 0"),
        ("repetition", {"repeat": 1.2}, r"repeat must lie in \[0, 1\], got 1.2"),
        ("class_domain", {"increment": 7}, "increment must be from 1 to the number of classes, 6"),
        ("class_domain", {"domain_order": "ink,chalk"}, "unknown domain 'chalk'"),
        ("blurry", {"repeat": 0.2}, "`repeat` must go with scenario 'repetition', got 'blurry'"),
        ("class", {"blur": 0.2}, "recipe key `blur` must go with scenario 'blurry', got 'class'"),
        (
            "repetition", {"increment": 2},
            r"`increment` must go with scenario 'class', got 'repetition' \(or 'blurry', ",
        ),
        ("burry", {}, "recipe key `scenario`: .*'blurry'.*got 'burry'"),
    ],
)  # fmt: skip
def test_bad_recipes_end_in_one_sentence(
    digits: ImageSource, scenario: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan_stream(digits, config(scenario, **changes))


def test_recipes_say_only_what_their_scenario_has() -> None:
    own = {"blur", "imbalance", "tail", "head_images", "num_experiences", "repeat", "increment"}
    recorded = {name: set(config(name).model_dump()) & own for name in [*NAMES, "class"]}
    assert recorded == {
        "blurry": {"blur", "increment"},
        "long_tailed": {"imbalance", "tail", "head_images", "increment"},
        "repetition": {"num_experiences", "repeat"},
        "class_domain": {"increment"},
        "class": {"increment"},
    }
    short = {"strategy": "lae", "scenario": "repetition"}
    assert RunConfig.parse(short).num_experiences == 5
    assert RunConfig(**short).num_experiences == 5
    assert RunConfig.parse({**short, "scenario": "shift"}).num_experiences == 14


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [name for name in EVERY if "domain" not in name])
def test_every_scenario_over_the_digits(tmp_path: Path, scenario: str) -> None:
    """All of them, as the command runs them: class means know what they have seen."""
    arguments = ["--strategy", "simplecil", "--stream", "digits", "--scenario", scenario]
    arguments += ["--imbalance", "20"] if scenario == "long_tailed" else []
    arguments += ["--num-experiences", "7"] if scenario == "shift" else []
    result = CliRunner().invoke(app, ["run", *arguments, "--out", str(tmp_path), "--quiet"])
    assert result.exit_code == 0, result.output
    (run,) = load_runs([tmp_path]).finished
    assert run.values["a_last_micro"] > (80 if scenario != "shift" else 50), "changed digits"


@pytest.mark.slow
@pytest.mark.parametrize("scenario", EVERY)
def test_scenarios_over_real_images(tmp_path: Path, scenario: str) -> None:
    path = DATA / ("pacs_160.parquet" if "domain" in scenario else "gtsrb_64.parquet")
    if not path.exists():
        pytest.skip(f"{path} is not here")
    source = open_source(path)
    prepared = prepare(config(scenario), source=source)
    for images, parts in ((source.train, prepared.plan.train), (source.test, prepared.plan.test)):
        assert all(len(part) for part in parts)
        if scenario == "shift" and images is source.test:
            assert all(part.tolist() == list(range(len(images))) for part in parts)
            continue
        rows = np.concatenate(parts)
        assert len(set(rows.tolist())) == len(rows)
        whole = scenario != "long_tailed" or images is source.test
        assert (len(rows) == len(images)) == whole
    runner.run(prepared, tmp_path)
    (run,) = load_runs([tmp_path]).finished
    assert run.values["a_last_micro"] > 100 / len(source.classes)
