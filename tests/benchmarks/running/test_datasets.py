"""Recipes and runs over several data sets."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cl_adapters.benchmarks.data.datasets import DataSets, join_datasets
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.batch import expand
from cl_adapters.benchmarks.running.opening import open_images
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig, read_recipe
from cl_adapters.benchmarks.running.scenarios import plan_stream, stream_name
from cl_adapters.benchmarks.sweeps.sweep import differing, expand_grid, title
from cl_adapters.errors import InputError
from cl_adapters.records.events import read_events
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions
from cl_adapters.reports.detection import detection
from cl_adapters.reports.groups import group_runs
from cl_adapters.reports.growth import read_history
from cl_adapters.reports.load import load_runs
from tests.benchmarks.conftest import InterruptedAt
from tests.benchmarks.datasets import in_memory, written
from tests.cli.test_cli import TINY, call

RECIPES = Path(__file__).parents[3] / "benchmarks" / "recipes"
DATA = Path(__file__).parents[4] / "shared" / "data"
TABLES: list[dict[str, Any]] = [{"data": "a.parquet"}, {"name": "signs", "data": "b/"}]


def recipe(**changes: Any) -> RunConfig:
    return RunConfig.parse({"strategy": "simplecil", "scenario": "datasets", **changes})


# --- the recipe ---------------------------------------------------------------------------------


def test_a_line_and_tables_say_the_same() -> None:
    line, tables = recipe(data='a.parquet, "signs=b/"'), recipe(datasets=TABLES)
    assert line == tables
    assert (line.data, [each.name for each in line.datasets]) == (None, ["a", "signs"])
    written = line.model_dump(mode="json")
    assert written["datasets"] == [{"data": "a.parquet", "name": "a"}, TABLES[1]]
    assert "stream" not in written
    assert RunConfig.parse(written) == line
    assert (line.source, line.sources) == ("a,signs", ["a.parquet", "b/"])


def test_recipes_share_images_only_where_their_data_sets_are_the_same() -> None:
    cut = [TABLES[0], {**TABLES[1], "max_images_per_class": 3}]
    assert recipe(datasets=TABLES, seed=1).images == recipe(datasets=TABLES).images
    assert recipe(datasets=cut).images != recipe(datasets=TABLES).images
    assert recipe(datasets=TABLES, validation=0.5).images != recipe(datasets=TABLES).images


def test_tables_are_one_value_of_a_grid() -> None:
    grid = {"strategy": "simplecil", "scenario": "datasets", "datasets": TABLES, "seeds": 2}
    configs = expand_grid({**grid, "increment": [1, 2]})
    assert len(configs) == 4
    assert title(configs[1], differing(configs)) == "simplecil on a,signs seed 1 increment=1"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {},
            r"'datasets' must be given its data sets, as --data a.parquet,b/ or as tables .* None",
        ),
        ({"data": "a.parquet"}, "must have at least two data sets, got 1"),
        ({"data": "a.parquet,b/", "stream": "digits"}, "`stream` must not go with .* 'digits'"),
        ({"data": "a", "datasets": TABLES}, "`data` must not go with scenario 'datasets', .* 'a'"),
        ({"data": "x/a.csv,y/a.csv"}, "must have different names, got 'a' twice; `name` gives"),
        ({"data": "../,b/"}, "name of a data set must be text without `/` and commas, got '..'"),
        ({"data": "a\nb,c"}, "data must be one line of data sets separated by commas, got 'a"),
        ({"datasets": [{"data": "a"}, {"name": "b"}]}, "recipe key `datasets.1.data`: Field requ"),
        ({"datasets": [*TABLES, {"data": "c", "incremnt": 3}]}, "`datasets.2.incremnt`: Extra in"),
        (
            {"datasets": [*TABLES, {"data": "c", "increment": 0}]},
            "`datasets.2.increment`: .* got 0",
        ),
        ({"datasets": [*TABLES, {"data": "c", "increment": True}]}, "must be a number, got true"),
        ({"datasets": "a,b"}, "recipe key `datasets`: .*got 'a,b'"),
        ({"datasets": TABLES, "first": 2}, "`first` must go with scenario 'class', got 'datasets'"),
        ({"datasets": TABLES, "scenario": "class"}, "`datasets` must go with scenario 'datasets'"),
        (
            {"datasets": TABLES, "continued": [{"data": "c"}]},
            "scenario 'datasets' must not be continued: its data sets and their order were said",
        ),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        recipe(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "experiences", "returns"),
    [("five_datasets", 8, 3), ("five_datasets_recurring", 11, 6)],
)
def test_the_recipes_of_five_data_sets(name: str, experiences: int, returns: int) -> None:
    (config,) = expand({"strategy": "sema"}, recipe=RECIPES / f"{name}.toml", seeds=1, settings=[])
    names = [each.name for each in config.datasets]
    assert names == ["objects", "signs", "characters", "digits", "sketches"]
    order = config.dataset_order.split(",")
    assert (len(order), len(order) - len(set(order))) == (experiences, returns)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["five_datasets", "five_datasets_recurring"])
def test_the_five_data_sets_make_the_stream(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not DATA.exists():
        pytest.skip(f"{DATA} is not here")
    monkeypatch.chdir(RECIPES.parents[1])
    config = RunConfig.parse({**read_recipe(RECIPES / f"{name}.toml"), "strategy": "sema"})
    plan = plan_stream(open_images(config), config)
    assert {len(each) for each in plan.experiences} == {config.increment}
    assert [each.name for each in plan.domains] == config.dataset_order.split(",")
    assert all(len(part) for part in (*plan.train, *plan.test))


# --- opening ------------------------------------------------------------------------------------


def test_what_a_data_set_does_not_say_the_recipe_says_of_all(tmp_path: Path) -> None:
    a, b = written(tmp_path / "a.parquet", 0, 3, 6), written(tmp_path / "b.parquet", 1, 3, 6)
    tables = [{"data": str(a), "domain": "ink"}, {"data": str(b), "max_images_per_class": 4}]
    source = open_images(recipe(datasets=tables, max_classes=2, max_images_per_class=2))
    assert source.classes == ("a/0", "a/1", "b/0", "b/1")
    assert [len(part.train) for part in source.parts] == [4, 4]
    assert source.reading.quick_look == (
        "a: 2 of 3 classes, 4 of 9 train images, 2 of 3 test images; "
        "b: 2 of 3 classes, 4 of 12 train images, 4 of 6 test images"
    )
    whole = recipe(datasets=tables, validation=0.5)
    opened = open_images(whole)
    assert opened.reading.quick_look == "", "what a data set is cut down to is the stream"
    assert [len(part.test) for part in opened.parts] == [2 * 3, 2 * 3]
    assert not set(opened.train.digests) & set(opened.test.digests)
    assert stream_name(opened, whole) == "a-b-datasets-validation"


def test_a_missing_file_and_a_forgotten_scenario_are_said(tmp_path: Path) -> None:
    a = written(tmp_path / "a.parquet", 0, 2)
    with pytest.raises(InputError, match=r"b.parquet' must be an image folder, .* that exists"):
        open_images(recipe(data=f"{a},{tmp_path / 'b.parquet'}"))
    with pytest.raises(InputError, match="several data sets are a stream of scenario 'datasets'"):
        open_images(recipe(scenario="class", data=f"{a},{a}"))


# --- runs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source() -> DataSets:
    sizes = {"objects": 4, "signs": 2, "digits": 2}
    return join_datasets(
        [in_memory(name, hue, n, 6) for hue, (name, n) in enumerate(sizes.items())]
    )


def config(strategy: str, **options: Any) -> RunConfig:
    values = {"backbone": "test_vit", "weights": "random", "image_size": 32, "options": options}
    tables = [{"data": name} for name in ("objects", "signs", "digits")]
    order = "objects,signs,digits,objects"
    return recipe(strategy=strategy, datasets=tables, dataset_order=order, **values)


def test_a_run_records_names_and_truth_and_resumes_bit_for_bit(
    source: DataSets, tmp_path: Path, interrupted_at: InterruptedAt
) -> None:
    options = {"epochs": 1, "batch_size": 4, "policy": "every_experience", "descriptor_epochs": 2}
    given = config("sema", **options)
    straight = runner.run(prepare(given, source=source), tmp_path / "straight")
    record = RunRecord.read(straight)
    assert record.stream == "objects-signs-digits-datasets"
    assert record.fingerprint["experience_names"] == ["objects 1", "signs", "digits", "objects 2"]
    assert sorted(record.classes) == sorted(source.classes)
    assert record.fingerprint["data"] == source.describe()
    history = read_history(read_events(straight), 4)
    assert [history.domains[t].domain for t in range(4)] == [
        "objects",
        "signs",
        "digits",
        "objects",
    ]
    values = detection(history)
    assert (values["changes"], values["oracle_adapters"]) == (3, 2)
    assert (values["growing_experiences"], values["reuse_on_recurrence"]) == (3, 0)
    with interrupted_at(2):
        runner.run(prepare(given, source=source), tmp_path / "killed")
    again = runner.run(prepare(given, source=source), tmp_path / "killed")
    pd.testing.assert_frame_equal(
        read_predictions(again), read_predictions(straight), check_exact=True
    )


def test_the_command_runs_and_predicts_and_a_report_names_what_came(tmp_path: Path) -> None:
    a = written(tmp_path / "a.parquet", 0, 3)
    b = written(tmp_path / "b.parquet", 1, 2, called="stop {}")
    out = tmp_path / "runs"
    given = ["run", "--strategy", "simplecil", *TINY, "--scenario", "datasets", "--increment", "1"]
    given += ["--dataset-order", "interleaved", "--cache", "off", "--quiet"]
    code, text = call(*given, "--data", f"objects={a},signs={b}", "--out", str(out))
    assert code == 0, text
    (run,) = load_runs([out]).finished
    assert run.folder.parent == out / "objects-signs-datasets" / "simplecil"
    (group,) = group_runs([run])
    assert group.experience_names == ["objects 1", "signs 1", "objects 2", "signs 2", "objects 3"]
    code, text = call("predict", str(run.folder), str(b), "--labels", "--quiet")
    assert code == 0, text
    assert "signs/stop 1" in text, "whose label in the file is `stop 1`"
    code, text = call("continue", str(run.folder), "--data", str(a), "--out", str(out))
    assert (code, "scenario 'datasets' must not be continued" in text) == (2, True), text


def test_no_run_lies_in_one_of_its_data_sets(source: DataSets, tmp_path: Path) -> None:
    tables = [{"data": "objects"}, {"data": str(tmp_path)}, {"data": "digits", "name": "digits"}]
    given = config("simplecil").model_dump(mode="json")
    order = f"objects,{tmp_path.name},digits,objects"
    inside = RunConfig.parse({**given, "datasets": tables, "dataset_order": order})
    parts = [
        replace(part, name=each.name)
        for part, each in zip(source.parts, inside.datasets, strict=True)
    ]
    with pytest.raises(InputError, match="--out must lead outside of the data"):
        runner.run(prepare(inside, source=join_datasets(parts)), tmp_path / "runs")
