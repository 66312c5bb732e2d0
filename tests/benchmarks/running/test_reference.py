"""Published numbers against field.md and zoo.md."""

import csv
import re
from pathlib import Path

import pytest

from cl_adapters.benchmarks.running.protocols import find_protocol
from cl_adapters.benchmarks.running.references import (
    REFERENCE,
    read_references,
    references,
)
from cl_adapters.errors import InputError
from cl_adapters.strategies import options_of
from tests.benchmarks.running.known_runs import CIFAR, IN21K, ROOT

FIELD = ROOT.parent / "shared" / "field.md"
ZOO = FIELD.with_name("zoo.md")
# Read in the repositories themselves: RanPAC's paper_tables/Table_data_main_cars.csv, and CL-LoRA's
# logs/cllora/vtab.
READ = {"66.0", "37.7", "94.00"}
# The methods that zoo.md describes in these sections; each ends in its published numbers.
NUMBERS = ("3.4", "4.4", "5.6", "9.5", "10.6", "11.5", "12.5", "13.4", "14.4", "15.4", "16.2")
DEVIATIONS = {"0.73", "0.32"}
IN_ZOO = {
    "L2P": "l2p", "DualPrompt": "dualprompt", "CODA-Prompt": "coda_prompt", "CODA-P": "coda_prompt",
    "HiDe-Prompt": "hide_prompt", "InfLoRA": "inflora", "SD-LoRA": "sd_lora", "CL-LoRA": "cl_lora",
    "SLCA": "slca", "CoFiMA": "cofima", "SSIAT": "ssiat", "TUNA": "tuna", "ACMap": "acmap",
}  # fmt: skip


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


def numbers_of(zoo: str, section: str) -> str:
    """What follows the word Numbers in a section of zoo.md, up to the end of its paragraph."""
    part = zoo[zoo.index(f"\n### {section} ") :]
    return part[part.index("Numbers") :].partition("\n")[0]


@pytest.mark.skipif(not FIELD.is_file(), reason="the field's notes are not beside the checkout")
def test_every_number_stands_in_the_fields_notes_and_none_is_missing() -> None:
    text = FIELD.read_text("utf-8")
    part = text[text.index("### 3.6") : text.index("## 4. Avalanche")]
    zoo = ZOO.read_text("utf-8")
    third = zoo[zoo.index("## 17. Third-party") : zoo.index("How to read them")]
    own = "".join(numbers_of(zoo, section) for section in NUMBERS)
    numbers = set(re.findall(r"\d+\.\d+", part + third + own)) | READ
    ours = {
        row["value"]
        for path in REFERENCE.glob("*.csv")
        for row in csv.DictReader(path.read_text("utf-8").splitlines())
    }
    assert ours <= numbers
    assert set(re.findall(r"\d+\.\d+", third)) <= ours
    assert set(re.findall(r"\d+\.\d\d", own)) - DEVIATIONS <= ours
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
        is_doubtful = row.source.startswith(("SSIAT", "SPIE", "SEMA paper, Table 1"))
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


# The options under which a method computes a number.


def by_hand(text: str) -> object:
    """A value as it stands in a CSV file."""
    if text in {"true", "false"}:
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text


@pytest.mark.parametrize("options", sorted({(row.strategy, row.options) for row in references()
                                            if row.options}))  # fmt: skip
def test_the_options_of_a_row_are_those_of_its_strategy(options: tuple[str, str]) -> None:
    strategy, text = options
    settings = dict(pair.split("=") for pair in text.split(" "))
    found = options_of(strategy, "official", settings)
    expected = {name: by_hand(value) for name, value in settings.items()}
    if settings.get("clip_norm") == "none":  # of others it is a word, as of `mean_scaling`
        expected["clip_norm"] = None
    assert {name: getattr(found, name) for name in settings} == expected


@pytest.mark.parametrize("method", sorted(IN_ZOO))
def test_a_row_of_a_method_of_ours_names_it_or_says_why_not(method: str) -> None:
    rows = [row for row in references() if row.method == method]
    assert any(row.strategy for row in rows)
    for row in rows:
        assert row.strategy in (IN_ZOO[method], "")
        assert row.strategy or row.note, row
        is_other_table = row.source.startswith(("AAAI25-MOS", "SPIE", "SEMA", "SSIAT"))
        assert row.unverified or not is_other_table, "the settings of another's table are not known"


SGD = {"epochs": "20", "lr": "0.01", "batch_size": "48", "weight_decay": "0.0005"}


@pytest.mark.parametrize(
    ("method", "protocol", "tag", "strategy", "expected"),
    [  # zoo.md 2.1, 6.2 and 7.1
        ("RanPAC", "ranpac-cifar100-b0inc10", "", "ranpac", {**SGD, "variant": "adapter"}),
        ("RanPAC", "pilot-imagenet-r-b0inc20", "_ft_in1k", "ranpac", {**SGD, "variant": "ssf"}),
        ("RanPAC", "pilot-omnibenchmark-b0inc30", "", "ranpac", {**SGD, "variant": "vpt_deep"}),
        ("RanPAC, no phase 1", "pilot-cub-b0inc20", "_ft_in1k", "ranpac",
         {"first_session": "false", "projections": "10000"}),
        ("RanPAC", "ranpac-cars-b16inc20", "", "ranpac", {**SGD, "variant": "vpt_deep"}),
        ("APER-Adapter", "pilot-cub-b0inc10", "", "aper", {**SGD, "peft_scale": "0.1"}),
        ("APER-Adapter", "pilot-imagenet-r-b0inc5", "", "aper",
         {"epochs": "20", "lr": "0.05", "batch_size": "24", "weight_decay": "0.005"}),
        ("APER-SSF", "pilot-imagenet-r-b0inc5", "", "aper", {**SGD, "variant": "ssf"}),
        ("APER-VPT-deep", "pilot-vtab-b0inc10", "", "aper",
         {"epochs": "5", "lr": "0.05", "batch_size": "16", "weight_decay": "0.0005"}),
        ("APER-VPT-deep", "pilot-objectnet-b0inc10", "", "aper", {**SGD, "batch_size": "128"}),
        ("APER-VPT-deep", "pilot-omnibenchmark-b0inc30", "", "aper", SGD),
        ("APER-Finetune", "pilot-cifar100-b0inc5", "", "aper",
         {"variant": "finetune", "epochs": "5", "lr": "0.01", "batch_size": "128"}),
        ("EASE", "pilot-cifar100-b0inc5", "_ft_in1k", "ease", {**SGD, "lr": "0.025"}),
        ("EASE", "pilot-cub-b0inc10", "_ft_in1k", "ease",
         {"lr": "0.005", "batch_size": "16", "alpha": "0.005", "beta": "1.0"}),
        ("EASE", "pilot-cub-b0inc10", "", "ease",
         {"lr": "0.008", "batch_size": "32", "alpha": "0.05", "beta": "0.0"}),
        ("EASE", "pilot-vtab-b0inc10", "", "ease", {"size": "16", "epochs": "45", "lr": "0.03"}),
        ("EASE", "pilot-objectnet-b0inc10", "", "ease", {"epochs": "25", "alpha": "0.2"}),
        ("EASE", "pilot-objectnet-b0inc10", "_ft_in1k", "", {}),  # Adam
        ("EASE", "pilot-omnibenchmark-b0inc30", "", "aper", {"batch_size": "16"}),
    ],
)  # fmt: skip
def test_rows_carry_the_published_settings(
    method: str, protocol: str, tag: str, strategy: str, expected: dict[str, str]
) -> None:
    key = (method, protocol, IN21K + tag)
    rows = [row for row in references() if (row.method, row.protocol, row.backbone) == key]
    assert rows
    for row in rows:
        assert row.strategy == strategy
        assert row.settings.items() >= expected.items()


@pytest.mark.parametrize(
    ("strategy", "protocol", "expected"),
    [  # zoo.md 3.2, 4.2, 10.3, 12.1, 13.2 and 14.2
        ("l2p", "l2p-cifar100-b0inc10",
         {"layout": "port", "top_k": "5", "key_weight": "0.1", "lr": "0.001875", "epochs": "5"}),
        ("dualprompt", "l2p-cifar100-b0inc10",
         {"prompt_pairing": "port", "selection": "batch", "lr": "0.0028125", "epochs": "5"}),
        ("inflora", "inflora-cifar100-b0inc10",
         {"epochs": "20", "lr": "0.0005", "lamb": "0.95", "batch_size": "128"}),
        ("inflora", "inflora-imagenet-r-b0inc20", {"epochs": "50", "lamb": "0.98"}),
        ("inflora", "inflora1993-imagenet-r-b0inc20", {"epochs": "50", "lamb": "0.98"}),
        ("tuna", "pilot-cifar100-b0inc5", {"epochs": "15", "orthogonality": "0.0"}),
        ("tuna", "pilot-imagenet-r-b0inc20",
         {"epochs": "10", "lr": "0.02", "batch_size": "32", "mean_scaling": "tuna"}),
        ("tuna", "pilot-imagenet-a-b0inc20", {"margin": "0.3", "alignment_epochs": "10"}),
        ("tuna", "pilot-objectnet-b0inc20", {"lr": "0.05", "alignment_lr": "0.001"}),
        ("cl_lora", "pilot-imagenet-r-b0inc5", {"rank": "10", "lr": "0.05", "batch_size": "32"}),
        ("cl_lora", "pilot-vtab-b0inc10", {"rank": "10", "lr": "0.03", "epochs": "45"}),
        ("sd_lora", "sdlora-imagenet-r-b0inc40", {"lr": "0.01", "optimizer": "sgd"}),
        ("ranpac", "ranpac-cddb-by-domain", {"projections": "5000", "variant": "adapter"}),
    ],
)  # fmt: skip
def test_rows_of_each_protocol_carry_the_published_settings(
    strategy: str, protocol: str, expected: dict[str, str]
) -> None:
    rows = [row for row in references() if (row.strategy, row.protocol) == (strategy, protocol)]
    assert any(row.settings.items() >= expected.items() for row in rows)


def test_what_official_gives_need_not_be_set() -> None:
    rows = {(row.method, row.protocol): row for row in references() if row.backbone == IN21K}
    assert rows["RanPAC", "ranpac-cifar100-b0inc10"].unset == {}
    assert rows["APER-Adapter", "pilot-imagenet-r-b0inc5"].unset == {
        "lr": "0.05", "batch_size": "24", "weight_decay": "0.005",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        ("mos", "epochs", "line 2 of few.csv: options must be name=value, each name once"),
        ("mos", "epochs=", "options must be name=value, each name once"),
        ("mos", "epochs=5 epochs=6", "each name once, separated by spaces, got 'epochs=5 epochs=6'"),
        ("", "epochs=5", "line 2 of few.csv: options must belong to a strategy, got 'epochs=5'"),
    ],
)  # fmt: skip
def test_bad_options_are_refused(tmp_path: Path, strategy: str, options: str, message: str) -> None:
    path = tmp_path / "few.csv"
    path.write_text(
        "method,strategy,options,protocol,backbone,metric,value,tolerance,source,unverified,note\n"
        f"MOS,{strategy},{options},{CIFAR},b.t,a_last_micro,81.28,0.3,the log,,\n",
        "utf-8",
    )
    with pytest.raises(InputError, match=message):
        read_references(path)
