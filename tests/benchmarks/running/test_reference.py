"""Published numbers against field.md."""

import csv
import re
from pathlib import Path

import pytest

from cl_adapters.benchmarks.running.protocols import find_protocol
from cl_adapters.benchmarks.running.verify import (
    REFERENCE,
    read_references,
    references,
)
from cl_adapters.errors import InputError
from tests.benchmarks.running.known_runs import CIFAR, IN21K, ROOT

FIELD = ROOT.parent / "shared" / "field.md"


# The published numbers.


@pytest.mark.parametrize(
    ("method", "protocol", "backbone", "metric", "value"),
    [
        ("SimpleCIL", CIFAR, IN21K, "a_last_micro", 81.28),
        ("SimpleCIL", CIFAR, IN21K, "a_last_micro", 81.26),
        ("APER-SSF", "pilot-objectnet-b0inc10", IN21K, "a_avg_micro", 68.91),
        ("EASE", "pilot-vtab-b0inc10", f"{IN21K}_ft_in1k", "a_last_micro", 93.36),
        ("MOS", "pilot-omnibenchmark-b0inc20", f"{IN21K}_ft_in1k", "a_last_micro", 79.10),
        ("MOS", "pilot-imagenet-a-b0inc20", IN21K, "forgetting_from_best", 9.82),
        ("MOS", "pilot-imagenet-a-b0inc20", IN21K, "a_avg_micro", 69.13),
        ("SEMA", "sema-imagenet-r-b0inc10", IN21K, "a_last_task_mean", 69.60),
        ("RanPAC", "pilot-cub-b0inc20", f"{IN21K}_ft_in1k", "a_last_task_mean", 90.3),
        ("LAE", "pilot-cifar100-b0inc10", "", "a_last_micro", 85.25),
    ],
)
def test_cells_of_the_fields_tables(
    method: str, protocol: str, backbone: str, metric: str, value: float
) -> None:
    key = (method, protocol, backbone, metric, value)
    assert key in {
        (row.method, row.protocol, row.backbone, row.metric, row.value) for row in references()
    }


@pytest.mark.skipif(not FIELD.is_file(), reason="the field's notes are not beside the checkout")
def test_every_number_stands_in_the_fields_notes_and_none_is_missing() -> None:
    text = FIELD.read_text("utf-8")
    part = text[text.index("### 3.6") : text.index("## 4. Avalanche")]
    numbers = set(re.findall(r"\d+\.\d+", part))
    ours = {
        row["value"]
        for path in REFERENCE.glob("*.csv")
        for row in csv.DictReader(path.read_text("utf-8").splitlines())
    }
    assert ours <= numbers
    pairs = re.findall(r"(\d+\.\d+)(?:±[\d.]+)?/(\d+\.\d+)", part[: part.index("**(f) Others**")])
    missing = {each for pair in pairs for each in pair} - ours
    # "Growth (its Tables 5-6)" counts parameters, not accuracy.
    growth = set(re.findall(r"\d+\.\d+", re.search(r"Growth.*", part)[0]))  # type: ignore[index]
    learning_rates = {"0.005", "0.01"}
    assert missing <= growth | learning_rates, sorted(missing)


def test_every_number_has_a_source_a_tolerance_and_its_doubts() -> None:
    assert len(references()) > 500
    for row in references():
        assert row.source
        assert 0.2 < row.tolerance <= 3
        assert row.protocol or row.note, "what has no protocol says why"
        is_doubtful = "SSIAT" in row.source or row.source == "SEMA paper, Table 1"
        assert bool(row.unverified) >= is_doubtful
        if row.protocol and not row.backbone:
            assert row.unverified, "a number without stated weights decides nothing"
        if row.protocol and row.backbone:
            assert row.backbone in find_protocol(row.protocol).backbones


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("pilot-cifar100-b0inc5", "pilot-cifar10"), "line 2 of few.csv: protocol must exist"),
        (("a_last_micro", "accuracy"), "line 2 of few.csv: metric must be one of"),
        (("81.28", "high"), "line 2 of few.csv: value and tolerance must be numbers"),
        (("81.28", "812.8"), "line 2 of few.csv: value must lie in 0 to 100"),
        (("81.28", "nan"), "line 2 of few.csv: value must lie in 0 to 100"),
        (("0.3", "0"), "and tolerance be positive, got 81.28 and 0.0"),
        (("the log", ""), "line 2 of few.csv: method and source must not be empty"),
        (("tolerance,", ""), "must have the columns method, strategy"),
    ],
)
def test_a_bad_row_is_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = (
        "method,strategy,protocol,backbone,metric,value,tolerance,source,unverified,note\n"
        "SimpleCIL,simplecil,pilot-cifar100-b0inc5,b.t,a_last_micro,81.28,0.3,the log,,\n"
    )
    path = tmp_path / "few.csv"
    path.write_text(text, "utf-8")
    assert read_references(path)[0].value == 81.28
    path.write_text(text.replace(*change), "utf-8")
    with pytest.raises(InputError, match=message):
        read_references(path)
