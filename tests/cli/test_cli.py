"""The command from outside: exit codes, one-sentence errors, what it prints and writes."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cl_adapters.benchmarks.running.checkpoints import ExperienceCheckpoint
from cl_adapters.cli import app
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.records.tables import read_predictions

TINY = ["--backbone", "test_vit", "--weights", "random", "--image-size", "32"]
QUICK = [*TINY, "--set", "epochs=1", "--set", "lae.freeze_epochs=0"]


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LAE and SimpleCIL on digits, two seeds, one epoch."""
    out = tmp_path_factory.mktemp("runs")
    code, text = call(
        "run", "--strategy", "lae,simplecil", "--seeds", "2", *QUICK, "--out", str(out)
    )
    assert code == 0, text
    (out / "printed.txt").write_text(text, "utf-8")
    return out


def last_accuracy(folder: Path, experience: int = 4) -> float:
    rows = read_predictions(folder)
    rows = rows[rows["experience"] == experience]
    return float((rows["prediction"] == rows["target"]).mean())


def test_a_run_tells_each_experience_and_ends_with_what_was_found(runs: Path) -> None:
    text = (runs / "printed.txt").read_text("utf-8")
    for folder in find_runs([runs]):
        record = RunRecord.read(folder)
        for experience in range(5):
            share = f"{last_accuracy(folder, experience):.1%} right so far"
            name = f"{record.strategy} seed {record.seed}"
            classes = ", ".join(record.classes[each] for each in record.experiences[experience])
            assert f"{name}: experience {experience + 1} of 5 ({classes}), {share}\n" in text
    table = text[text.index("Stream") :].splitlines()
    folders = [each for each in find_runs([runs]) if RunRecord.read(each).strategy == "simplecil"]
    mean = sum(map(last_accuracy, folders)) / 2
    (row,) = (line for line in table if line.startswith("digits  simplecil"))
    assert f"{mean:.2%}"[:-1] in row
    assert any("simplecil leads on A_last" in line for line in table)
    assert table[-1] == f"figures and more: cl-adapters report {runs / 'digits'} --out report"


def test_running_writes_one_directory_per_strategy_and_seed(runs: Path) -> None:
    records = [RunRecord.read(folder) for folder in find_runs([runs])]
    assert [(each.strategy, each.seed) for each in records] == [
        ("lae", 0), ("lae", 1), ("simplecil", 0), ("simplecil", 1),
    ]  # fmt: skip
    assert {each.state for each in records} == {"finished"}


@pytest.mark.parametrize(
    ("scenario", "options"),
    [
        pytest.param("blurry", {"increment": 5, "blur": 0.3}, marks=pytest.mark.slow),
        ("long_tailed", {"increment": 5, "imbalance": 20.0, "tail": "shuffled"}),
        pytest.param("repetition", {"num_experiences": 2, "repeat": 0.5}, marks=pytest.mark.slow),
    ],
)
def test_scenarios_have_options_and_reports(
    tmp_path: Path, scenario: str, options: dict[str, float | str]
) -> None:
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    out = tmp_path / "runs"
    code, text = call(
        "run", "--strategy", "simplecil", "--scenario", scenario, *given, *TINY, "--out", str(out)
    )
    assert code == 0, text
    (folder,) = find_runs([out])
    record = RunRecord.read(folder)
    assert options.items() <= record.config.items()
    assert (record.stream, record.fingerprint["scenario"]) == (f"digits-{scenario}", scenario)
    assert [len(each) for each in record.experiences] == [5, 5]
    code, text = call("report", str(out), "--out", str(tmp_path / "report"), "--formats", "svg")
    assert code == 0, text
    assert f"digits-{scenario}" in text


def test_a_second_time_nothing_is_run_again(runs: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("run.json")}
    code, _ = call("run", "--strategy", "lae,simplecil", "--seeds", "2", *QUICK, "--out", str(runs))
    assert code == 0
    assert before == {path: path.stat().st_mtime_ns for path in runs.rglob("run.json")}


def test_the_report_has_page_figures_and_tables(runs: Path, tmp_path: Path) -> None:
    code, text = call("report", str(runs), "--out", str(tmp_path / "report"))
    assert code == 0, text
    assert "report.html" in text
    assert "simplecil" in text
    suffixes = {path.suffix for path in (tmp_path / "report").rglob("*") if path.is_file()}
    assert suffixes >= {".html", ".svg", ".png", ".csv", ".md", ".tex"}


@pytest.mark.parametrize(
    "what",
    ["strategies", "streams", "protocols", "backbones", "peft", "routers", "detectors", "policies"],
)
def test_listings_name_what_exists(what: str) -> None:
    code, text = call("list", what)
    assert code == 0
    expected = {
        "strategies": "ema_decay",
        "streams": "digits",
        "protocols": "pilot-cifar100-b0inc5",
        "backbones": "vit_pico",
        "peft": "lora",
        "routers": "learned_null",
        "detectors": "descriptor",
        "policies": "every_experience",
    }
    assert expected[what] in text


def test_runs_are_listed_with_their_state(runs: Path) -> None:
    code, text = call("list", "runs", "--out", str(runs))
    assert code == 0
    assert text.count("finished") == 4
    assert "5/5" in text
    assert all(f"{last_accuracy(folder):.1%}" in text for folder in find_runs([runs]))


def test_a_run_that_was_stopped_is_listed_with_what_it_kept(tmp_path: Path, runs: Path) -> None:
    folder = find_runs([runs])[0]
    shutil.copytree(folder, tmp_path / "here" / folder.name)
    record = RunRecord.read(folder)
    record.state, record.experiences_done = "running", 2
    record.write(tmp_path / "here" / folder.name)
    inside = ExperienceCheckpoint(tmp_path / "here" / folder.name / "checkpoints", minutes=0)
    inside.begin(2)
    inside.keep([])
    assert "2/5 and 0.0 min of the next" in call("list", "runs", "--out", str(tmp_path))[1]
    inside.drop()
    assert "2/5 and" not in call("list", "runs", "--out", str(tmp_path))[1]


def write_bad_image(folder: Path) -> None:
    from PIL import Image  # noqa: PLC0415

    for split in ("train", "test"):
        for name in ("cat", "dog"):
            place = folder / split / name
            place.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(place / "a.png")
    (folder / "train" / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n rubbish")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategy", "lea"], "unknown strategy 'lea'; did you mean 'lae'"),
        (["--strategy", "lae", "--stream", "digit"], "did you mean 'digits'?"),
        (["--strategy", "lae", "--increment", "11"], "number of classes, 10, got 11"),
        (["--strategy", "lae", "--backbone", "vit_tinny"], "unknown backbone 'vit_tinny'"),
        (
            ["--strategy", "lae", "--device", "cuda:99"],
            "device must be one that torch can use here",
        ),
        (["--strategy", "lae", "--data", "nowhere"], "nowhere"),
        (["--strategy", "lae", "--data", "{bad}"], "broken.png"),
        (["--strategy", "lae", "--weights", "no.pt"], "must be 'random' or an existing file"),
        (["--strategy", "lae", "--set", "epochs"], "must have the form key=value"),
        (["--strategy", "lae", "--out", "{file}"], "--out must be a folder"),
        ([], "--strategy must name at least one of"),
        (["--strategy", "lae", "--pipeline", "pilto"], "recipe key `pipeline`: Input should be"),
        (["--strategy", "lae", "--protocol", "pilot"], "unknown protocol 'pilot'"),
        (
            ["--strategy", "lae", "--blur", "0.2"],
            "`blur` must go with scenario 'blurry', got 'class'",
        ),
        (
            ["--strategy", "lae", "--scenario", "blurry", "--blur", "1"],
            "blur must lie in [0, 1), got 1.0",
        ),
        (
            ["--strategy", "lae", "--scenario", "long_tailed", "--imbalance", "1e4"],
            "imbalance must leave the smallest class an image",
        ),
        (
            ["--strategy", "lae", "--scenario", "repetition"],
            "recipe key `increment` must go with scenario 'class', got 'repetition'",
        ),
        (
            ["--strategy", "lae", "--protocol", "sema-vtab-b0inc10", "--data", "nowhere"],
            "`increment` must be 10 under protocol 'sema-vtab-b0inc10', got 1",
        ),
    ],
)
def test_bad_input_ends_in_one_sentence_and_exit_code_2(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    write_bad_image(tmp_path / "bad")
    (tmp_path / "file").write_text("")
    places = {"bad": tmp_path / "bad", "file": tmp_path / "file"}
    given = [each.format(**places) for each in arguments]
    options = [] if "--backbone" in given or "--weights" in given else TINY
    out = tmp_path / "runs"
    code, text = call("run", "--out", str(out), "--increment", "1", *options, *given)
    assert code == 2, text
    assert message in text
    assert text.strip().count("\n") == 0, "one sentence"
    assert not out.exists(), "nothing half-written"


def test_a_report_of_nothing_is_refused(tmp_path: Path) -> None:
    code, text = call("report", str(tmp_path), "--out", str(tmp_path / "report"))
    assert code == 2
    assert "must hold at least one run.json" in text
    assert not (tmp_path / "report").exists()


def test_an_unknown_option_is_refused_with_code_2() -> None:
    assert call("run", "--strateggy", "lae")[0] == 2


STOPPABLE = ["run", "--strategy", "finetune", *TINY, "--set", "epochs=2", "--out"]


def start(out: Path, errors: Path) -> int:
    """Starts the command in a process of its own, which has everything imported."""
    child = os.fork()
    if child:
        return child
    code: Any = "died"
    try:
        with errors.open("w") as sys.stderr:
            app([*STOPPABLE, str(out)])
    except SystemExit as ended:
        code = ended.code
    finally:
        os._exit(code if isinstance(code, int) else 70)


def finish(out: Path) -> Path:
    code, text = call(*STOPPABLE, str(out))
    assert code == 0, text
    (folder,) = find_runs([out])
    return folder


def experiences_done(out: Path) -> int:
    folders = find_runs([out]) if out.exists() else []
    return RunRecord.read(folders[0]).experiences_done if folders else 0


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that the stopped ones must equal."""
    return finish(tmp_path_factory.mktemp("straight"))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_continues_to_the_same_end(
    tmp_path: Path, straight: Path, stop: signal.Signals
) -> None:
    child = start(tmp_path / "runs", tmp_path / "errors")
    while experiences_done(tmp_path / "runs") < 1:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended by itself"
        time.sleep(0.02)
    os.kill(child, stop)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert experiences_done(tmp_path / "runs") < 5, "stopped too late to prove anything"
    if stop == signal.SIGINT:
        assert code == 1
        assert "the same command continues" in (tmp_path / "errors").read_text()
        assert "Traceback" not in (tmp_path / "errors").read_text()
    folder = finish(tmp_path / "runs")
    assert read_predictions(folder).equals(read_predictions(straight))
