"""Published numbers by option, those that no run covers, and the list of all."""

from pathlib import Path
from typing import Any

import pytest

from cl_adapters.benchmarks.running.verify import verify
from cl_adapters.records.run_record import RunRecord
from tests.benchmarks.running.known_runs import CIFAR
from tests.benchmarks.running.test_verify import (
    EXAMPLE,
    PILOT_PIXELS,
    Fake,
    call,
    make_record,
    write_run,
)

# Methods whose numbers differ by option.


def methods_met(record: RunRecord) -> tuple[set[str], str]:
    """The methods whose numbers a run is compared with, and why it is not if there are none."""
    values = dict.fromkeys(("a_last_micro", "a_avg_micro", "a_last_task_mean"), 90.0)
    found = verify([Fake(Path("run"), record, values)])
    reasons = [reason for _, reason in found.left_out]
    return {cell.reference.method for cell in found.cells}, "".join(reasons)


RANPAC: dict[str, Any] = {
    "experiences": [10] * 10,
    "pixels": {name: value for name, value in PILOT_PIXELS.items() if name != "resize"},
}


@pytest.mark.parametrize(
    ("config", "methods"),
    [
        ({"fidelity": "official"}, {"RanPAC"}),
        ({"fidelity": "official", "options": {"scale": 3.0}}, {"RanPAC"}),
        ({"fidelity": "official", "options": {"first_session": False}}, {"RanPAC, no phase 1"}),
        ({"options": {"first_session": "false", "projections": 10_000}}, {"RanPAC, no phase 1"}),
    ],
)
def test_a_run_meets_the_row_of_its_own_options_alone(
    config: dict[str, Any], methods: set[str]
) -> None:
    config = {"protocol": "ranpac-cifar100-b0inc10", **config}
    record = make_record("ranpac", fingerprint=RANPAC, config=config)
    assert methods_met(record) == (methods, "")


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({}, "RanPAC, differs in peft_scale: 1.0 instead of 0.1; projections: 2000 instead of"),
        ({"fidelity": "official", "options": {"variant": "ssf"}},
         "RanPAC, differs in variant: ssf instead of adapter"),
        ({"fidelity": "official", "options": {"first_session": False, "normalise_columns": True}},
         "RanPAC, no phase 1, differs in normalise_columns: true instead of false"),
        ({"options": {"of_tomorrow": 1}}, "differs in unknown option 'of_tomorrow'"),
    ],
)  # fmt: skip
def test_a_run_with_other_options_is_told_which(config: dict[str, Any], part: str) -> None:
    name = "ranpac-cifar100-b0inc10"
    record = make_record("ranpac", fingerprint=RANPAC, config={"protocol": name, **config})
    methods, reason = methods_met(record)
    assert methods == set()
    start = f"no published result of ranpac with its options for {name}; the nearest, "
    assert reason.startswith(start)
    assert part in reason


@pytest.mark.parametrize(
    ("options", "methods"),
    [
        ({}, {"APER-Adapter", "APER+Adapter"}),
        ({"variant": "ssf"}, {"APER-SSF", "APER+SSF"}),
        ({"variant": "vpt_shallow"}, {"APER-VPT-shallow", "APER+VPT-S"}),
        ({"variant": "vpt_deep", "epochs": 5, "lr": 0.05, "batch_size": 16},
         {"APER-VPT-deep", "APER+VPT-D"}),
        ({"variant": "finetune", "epochs": 5, "batch_size": 128},
         {"APER-Finetune", "APER+Finetune"}),
        # Of the second table's runs nobody says how they were trained.
        ({"variant": "finetune"}, {"APER+Finetune"}),
    ],
)  # fmt: skip
def test_each_variant_of_aper_has_rows_of_its_own(
    options: dict[str, Any], methods: set[str]
) -> None:
    record = make_record("aper", config={"fidelity": "official", "options": options})
    assert methods_met(record) == (methods, "")


# The command.


def test_what_no_run_covers_ends_the_list_with_its_reason(tmp_path: Path) -> None:
    write_run(tmp_path, make_record(), 81.3, 87.6, 6.0)
    code, text = call(tmp_path)
    assert code == 0, text
    table = text[text.index("covered by no run") :]
    rows = [" ".join(line.split()) for line in table.splitlines()]
    (cub,) = [line for line in rows if "pilot-cub-b0inc10" in line]
    assert "92.24" in cub
    assert "out of reach: no images of CUB-200-2011 known here" in table.replace("\n", " ")
    assert CIFAR not in table, "that one is covered"
    assert "MOS" not in table, "of methods that were run alone"
    assert text.rstrip().endswith("commands: cl-adapters verify --rows --strategy simplecil")


def test_rows_are_listed_without_a_run() -> None:
    code, text = call("--rows", "--strategy", "ranpac,loranpac")
    assert code == 0, text
    lines = text.splitlines()
    place = lines.index(
        "RanPAC, pilot-imagenet-r-b0inc20, augreg_in21k_ft_in1k: a_last_task_mean 77.9"
    )
    assert lines[place + 1] == (
        "  cl-adapters run --protocol pilot-imagenet-r-b0inc20 --strategy ranpac "
        "--fidelity official --set variant=ssf --backbone vit_base_patch16_224.augreg_in21k_ft_in1k "
        "--device auto --data imagenet-r --out runs"
    )
    assert lines[place + 2].startswith("  on this machine: out of reach: no images of ImageNet-R")
    assert "RanPAC: a_last_micro 96.7: out of reach: CORe50" in text
    assert lines[-1] == "loranpac: no published result is known here"
    assert "SimpleCIL" not in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "verify must be given either run folders or --rows, got neither"),
        (("--rows", EXAMPLE), "verify must be given either run folders or --rows, got both"),
        ((EXAMPLE, "--strategy", "mos"), "--strategy must stand beside --rows, got --strategy mos"),
        (("--rows", "--strategy", "ranpak"), "unknown strategy 'ranpak'; did you mean 'ranpac'"),
        (("--rows", "--data", "nowhere"), "data must be an image folder or a table that exists"),
    ],
)
def test_what_verify_cannot_do_is_one_sentence(
    arguments: tuple[object, ...], sentence: str
) -> None:
    code, text = call(*arguments)
    assert code == 2
    assert sentence in text
    assert len(text.splitlines()) == 1
