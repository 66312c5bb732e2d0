"""`--strategy avalanche:NAME` from outside: beside our own, with options, in one report."""

import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl_adapters.records.events import read_events
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.records.tables import read_predictions
from cl_adapters.strategies.avalanche_methods import DEFAULTS, avalanche_names
from tests.cli.test_cli import TINY, call
from tests.strategies.test_avalanche_methods import RESUMING


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of plain greys with noise, eight images each."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for label in range(4):
        (folder / f"grey {label}").mkdir()
        for index in range(8):
            pixels = generator.integers(0, 40, (16, 16, 3)) + 60 * label
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(folder / f"grey {label}" / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def runs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finetune and two of Avalanche's methods, one epoch."""
    out = tmp_path_factory.mktemp("runs")
    code, text = call(
        "run", "--strategy", "finetune,avalanche:Naive,avalanche:Replay", "--data", str(photos), "--increment", "2",
        *TINY, "--set", "epochs=1", "--set", "avalanche:Replay.mem_size=6", "--out", str(out),
    )  # fmt: skip
    assert code == 0, text
    assert "Warning" not in text
    return out


def test_each_has_a_directory_and_a_record_that_repeats_it(runs: Path) -> None:
    records = {each.strategy: each for each in map(RunRecord.read, find_runs([runs]))}
    assert set(records) == {"finetune", "avalanche.Naive", "avalanche.Replay"}
    assert not any(":" in str(folder) for folder in find_runs([runs]))
    replay = records["avalanche.Replay"]
    assert replay.config["strategy"] == "avalanche:Replay"
    assert replay.config["options"] == {"epochs": 1, "mem_size": 6}
    assert records["avalanche.Naive"].config["options"] == {"epochs": 1}
    assert replay.parameters == records["finetune"].parameters
    assert replay.versions["avalanche-lib"]


def test_events_are_those_of_every_run(runs: Path) -> None:
    events = {
        folder.parent.name: [each for each in read_events(folder) if each.experience == 1]
        for folder in find_runs([runs])
    }
    kinds = {name: sorted(each.event for each in found) for name, found in events.items()}
    assert kinds["avalanche.Replay"] == kinds["finetune"]
    images = {
        name: sum(each.images for each in found if each.event == "phase")
        for name, found in events.items()
    }
    assert images["avalanche.Naive"] == images["finetune"]
    assert images["avalanche.Replay"] > images["finetune"], "the images shown again count too"


def test_naive_predicts_what_finetune_predicts(runs: Path) -> None:
    rows = {folder.parent.name: read_predictions(folder) for folder in find_runs([runs])}
    same = rows["avalanche.Naive"]["prediction"] == rows["finetune"]["prediction"]
    assert same.mean() > 0.9
    assert rows["avalanche.Naive"]["nll"].to_numpy() == pytest.approx(
        rows["finetune"]["nll"].to_numpy(), abs=1e-2
    )


@pytest.mark.slow
def test_the_report_shows_them_together(runs: Path, tmp_path: Path) -> None:
    code, text = call("report", str(runs), "--out", str(tmp_path), "--formats", "svg")
    assert code == 0, text
    page = (tmp_path / "report.html").read_text("utf-8")
    for name in ("finetune", "avalanche.Naive", "avalanche.Replay"):
        assert name in text
        assert name in page
    assert "mixed protocols" not in page


def test_the_same_command_repeats_nothing(runs: Path, photos: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("run.json")}
    code, text = call(
        "run", "--strategy", "avalanche:Replay", "--data", str(photos), "--increment", "2", *TINY,
        "--set", "epochs=1", "--set", "mem_size=6", "--out", str(runs),
    )  # fmt: skip
    assert code == 0, text
    assert before == {path: path.stat().st_mtime_ns for path in runs.rglob("run.json")}


def test_they_are_listed_with_their_options() -> None:
    code, text = call("list", "strategies")
    assert code == 0
    lines = [line.split() for line in text.splitlines()]
    assert any(line[:1] == ["avalanche:Replay"] for line in lines)
    assert any(line[:2] == ["mem_size", "200"] for line in lines)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            "avalanche:Replya",
            "unknown strategy 'avalanche:Replya'; did you mean 'avalanche:Replay'",
        ),
        ("avalanche:PackNet", "strategy 'avalanche:PackNet' must fit one model with one growing"),
    ],
)
def test_bad_names_end_in_one_sentence(strategy: str, message: str, tmp_path: Path) -> None:
    code, text = call("run", "--strategy", strategy, "--out", str(tmp_path / "runs"))
    assert code == 2
    assert message in text.replace("\n", " ")
    assert not (tmp_path / "runs").exists()


# --- docs/avalanche.md and docs/methods/avalanche.md ------------------------------------------

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "avalanche.md").read_text("utf-8")
METHODS = (DOCS / "methods" / "avalanche.md").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    theirs, ours = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    for place, code in enumerate((theirs, ours)):
        quicker = code.replace("slice(0, 300)", "slice(0, 40)").replace("300, 400", "300, 320")
        quicker = quicker.replace("epochs=4", "epochs=1, freeze_epochs=0")
        quicker = quicker.replace("(grey, 32)", "(grey, 16)").replace(
            '_patch4_32")', '_patch4_32", image_size=16)'
        )
        quicker = quicker.replace('out="runs"', 'out="runs", image_size=16')
        (tmp_path / f"{place}.py").write_text(quicker, "utf-8")
        results = runpy.run_path(str(tmp_path / f"{place}.py"))
    assert results["stream"].n_classes == 10
    names = {RunRecord.read(folder).strategy for folder in find_runs([tmp_path / "runs"])}
    assert names == {"simplecil", "avalanche.Replay"}


@pytest.mark.slow
def test_the_commands_run(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block, *_) = re.findall(r"```console\n(.*?)```", METHODS, flags=re.DOTALL)
    first, *_ = (shlex.split(line) for line in block.splitlines())
    quick = ["--data", str(photos), *TINY, "--set", "epochs=1", "--set", "lae.freeze_epochs=0"]
    code, text = call(*first[1:], *quick)
    assert code == 0, text
    assert len(find_runs([tmp_path / "runs"])) == 4


def test_the_page_says_which_continue() -> None:
    rows = {
        resumes: set(re.findall(r"`(\w+)`", line.split("|")[1]))
        for resumes, line in zip(
            (True, False),
            (line for line in METHODS.splitlines() if re.match(r"\| `.*\| from the ", line)),
            strict=True,
        )
    }
    found: dict[bool, set[str]] = {True: {"GEM"}, False: set()}
    for name in avalanche_names():
        short = name.removeprefix("avalanche:")
        found[short in RESUMING or short == "GEM"].add(short)  # which is there with quadprog
    assert rows == found
    for name, value in DEFAULTS.items():
        assert f"`{name}` {value:g}" in METHODS.replace("\n", " ")
