"""Domain-incremental streams: one domain an experience."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cl_adapters.benchmarks.data.sources import ImageSource, digits_source, open_source
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.streams.domains import domain_order, domain_plan
from cl_adapters.benchmarks.streams.experiences import make_benchmark
from cl_adapters.errors import InputError
from cl_adapters.images.transforms import Preprocess
from cl_adapters.records.events import read_events
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions
from cl_adapters.reports.load import load_runs

DATA = Path(__file__).parents[4] / "shared" / "data"
PACS = DATA / "pacs_160.parquet"

Row = tuple[int, str, str | None]
# Label, split, domain: `c` has no class 2, though a test image of it.
ROWS: list[Row] = [
    (0, "train", "b10"), (1, "train", "b10"), (2, "train", "b10"),
    (0, "test", "b10"), (1, "test", "b10"), (2, "test", "b10"),
    (2, "train", "b2"), (1, "train", "b2"), (0, "train", "b2"), (2, "test", "b2"),
    (1, "train", "c"), (0, "train", "c"), (2, "test", "c"), (0, "test", "c"), (0, "test", "c"),
]  # fmt: skip


def write(path: Path, rows: list[Row], *, named: bool = True) -> Path:
    images = []
    for index, (label, _, domain) in enumerate(rows):
        stream = io.BytesIO()
        colour = (80 * label + 20, 10 * index, 200 * (domain == "c"))
        Image.new("RGB", (8, 8), colour).save(stream, "PNG")
        images.append(stream.getvalue())
    labels, splits, domains = zip(*rows, strict=True)
    columns = {"image": images, "label": labels, "split": splits}
    if named:
        columns["domain"] = pa.array(domains, pa.string()).dictionary_encode()
    file = path / "toys.parquet"
    pq.write_table(pa.table(columns), file)
    return file


@pytest.fixture
def source(tmp_path: Path) -> ImageSource:
    return open_source(write(tmp_path, ROWS))


def test_each_experience_is_a_domain_with_the_classes_it_has(source: ImageSource) -> None:
    plan = domain_plan(source, classes="2,0,1")
    assert [domain.name for domain in plan.domains] == ["b2", "b10", "c"]
    assert [domain.changed for domain in plan.domains] == [False, True, True]
    assert not any(domain.seen_before for domain in plan.domains)
    assert {(domain.severity, domain.share, domain.change) for domain in plan.domains} == {
        (1.0, 1.0, None)
    }
    assert plan.experiences == ((0, 1, 2), (0, 1, 2), (1, 2)), "positions of 2, 0 and 1"
    train = [row for row in ROWS if row[1] == "train"]
    test = [row for row in ROWS if row[1] == "test"]
    for t, name in enumerate(["b2", "b10", "c"]):
        assert [train[i] for i in plan.train[t]] == [row for row in train if row[2] == name]
        expected = [row for row in test if row[2] == name and (name != "c" or row[0] != 2)]
        assert [test[i] for i in plan.test[t]] == expected


def test_the_plan_describes_its_order_and_which_image_is_where(
    source: ImageSource, tmp_path: Path
) -> None:
    described = domain_plan(source, order="c,b10").describe()
    assert described["domain_order"] == ["c", "b10"]
    assert described["scenario"] == "domain"
    rows = [*ROWS, (2, "train", "c")]  # every domain has all classes
    complete = open_source(write(tmp_path, rows))
    seeded = [domain_plan(complete, order="seeded", seed=seed) for seed in range(8)]
    assert all(each.describe() == seeded[0].describe() for each in seeded)
    assert len({tuple(d.name for d in each.domains) for each in seeded}) > 2
    swapped = [*rows]
    swapped[0], swapped[8] = (0, "train", "b2"), (0, "train", "b10")
    other = domain_plan(open_source(write(tmp_path, swapped)), order="seeded").describe()
    assert other["domains_sha256"] != seeded[0].describe()["domains_sha256"]


def test_orders_are_natural_seeded_or_given() -> None:
    names = ["b10", "a", "b2", "a"]
    assert domain_order("natural", names) == ("a", "b2", "b10")
    assert domain_order("seeded", names, 3) == domain_order("seeded", names[::-1], 3)
    assert sorted(domain_order("seeded", names, 3)) == ["a", "b10", "b2"]
    assert domain_order(["b10", "a"], names) == ("b10", "a")
    assert domain_order("a", names) == ("a",)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("natura", "unknown domain or domain order 'natura'; did you mean 'natural'"),
        ("a,b1", "unknown domain 'b1'; did you mean"),
        ("a,b2,a", "domain order must hold each domain once, got 'a' twice"),
        ([], "domain order must hold at least one domain, got none"),
    ],
)
def test_bad_orders_are_refused(order: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        domain_order(order, ["a", "b2", "b10"])


@pytest.mark.parametrize(
    ("rows", "order", "message"),
    [
        ([*ROWS, (0, "test", "d")], "natural", "domain 'd' must have at least one train image"),
        ([*ROWS, (0, "train", "d")], "natural", "domain 'd' must have at least one test image"),
        (ROWS, "c,b2", "class '1' must have test images in a domain of the stream"),
        (ROWS, "c", "class '2' must have train images in a domain of the stream"),
        ([*ROWS, (0, "train", None)], "natural", "domain of image in row 15 .* must not be empty"),
    ],
)
def test_domains_that_do_not_fit_are_refused(
    tmp_path: Path, rows: list[Row], order: str, message: str
) -> None:
    source = open_source(write(tmp_path, rows))
    with pytest.raises(InputError, match=message):
        domain_plan(source, order=order)


def test_data_without_domains_are_refused(tmp_path: Path) -> None:
    message = "must have a text column 'domain', 'toys' has none"
    with pytest.raises(InputError, match=message):
        domain_plan(open_source(write(tmp_path, ROWS, named=False)))
    with pytest.raises(InputError, match="'digits' has none"):
        domain_plan(digits_source())


def test_domains_follow_their_images(source: ImageSource) -> None:
    images = source.train
    assert images.domains is not None
    taken = images.take(np.array([4, 0]))
    assert taken.domains is not None
    assert taken.domains.tolist() == [images.domains[4], images.domains[0]]
    without = replace(images, domains=None)
    assert without.take(np.array([0])).domains is None
    assert without.checksum() == images.checksum(), "class-incremental fingerprints stay"


@pytest.mark.parametrize(
    "strategy",
    ["lae", "simplecil", *(pytest.param(n, marks=pytest.mark.slow) for n in ("finetune", "joint"))],
)
def test_strategies_run_on_domains_and_reports_read_them(
    source: ImageSource, tmp_path: Path, strategy: str
) -> None:
    options = {} if strategy == "simplecil" else {"epochs": 2}
    options |= {"freeze_epochs": 1} if strategy == "lae" else {}
    config = RunConfig.parse(
        {
            "strategy": strategy, "scenario": "domain", "domain_order": "c,b2,b10",
            "data": "toys", "backbone": "test_vit", "weights": "random", "image_size": 32,
            "options": options,
        }
    )  # fmt: skip
    folder = runner.run(prepare(config, source=source), tmp_path / "runs")
    record = RunRecord.read(folder)
    assert (record.stream, record.state) == ("toys-domain", "finished")
    assert [len(each) for each in record.experiences] == [2, 3, 3]
    domains = [event for event in read_events(folder) if event.event == "domain"]
    assert [event.domain for event in domains] == ["c", "b2", "b10"]
    rows = read_predictions(folder).query("experience == 2")
    assert rows.groupby("target_experience").size().tolist() == [2, 1, 3]
    (run,) = load_runs([tmp_path / "runs"]).finished
    assert run.matrix.shape == (3, 3)


@pytest.mark.slow
def test_pacs_is_four_domains_of_seven_classes() -> None:
    if not PACS.exists():
        pytest.skip(f"{PACS} is not here")
    source = open_source(PACS)
    plan = domain_plan(source, order="photo,sketch,cartoon,art_painting")
    table = pq.read_table(PACS, columns=["label", "split", "domain"]).to_pandas()
    counts = table.groupby(["domain", "split"], observed=True).size()
    assert plan.experiences == (tuple(range(7)),) * 4
    for t, name in enumerate(["photo", "sketch", "cartoon", "art_painting"]):
        assert len(plan.train[t]) == counts[name, "train"]
        assert len(plan.test[t]) == counts[name, "test"]
        mine = table[(table["domain"] == name) & (table["split"] == "train")]
        assert source.train.targets[plan.train[t]].tolist() == mine["label"].tolist()
    pixels = Preprocess(image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    experience = make_benchmark(source, plan, pixels).test_stream[1]
    assert experience.dataset[0][0].shape == (3, 32, 32)
    assert experience.classes_in_this_experience == set(range(7))
