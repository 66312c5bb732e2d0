"""Curves for TensorBoard and Weights & Biases, read back from the files that these programs read."""

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner
from wandb.proto import wandb_internal_pb2

from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.logs import MethodLog
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.wandb_log import WandbLog
from cl_adapters.cli import app
from cl_adapters.errors import InputError
from cl_adapters.records.events import read_events
from cl_adapters.reports.load import load_runs
from cl_adapters.strategies.core.strategy import AdapterStrategy
from cl_adapters.strategies.lae import LAE, LAEConfig
from tests.benchmarks.killable import SOURCE, config

Curves = dict[str, list[tuple[int, float]]]


def run(out: Path, *loggers: str, strategy: str = "lae", **settings: Any) -> Path:
    prepared = prepare(config(strategy), source=SOURCE)
    return runner.run(prepared, out, loggers=loggers, **settings)


def board(folder: Path) -> Curves:
    """What TensorBoard would draw; every point that was ever written counts."""
    found = EventAccumulator(str(folder / "tensorboard"), purge_orphaned_data=False).Reload()
    return {
        tag: [(each.step, each.value) for each in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def without_times(curves: Curves) -> Curves:
    return {name: points for name, points in curves.items() if not name.startswith("seconds/")}


@pytest.mark.slow
def test_curves_are_the_numbers_of_the_record(tmp_path: Path) -> None:
    folder = run(tmp_path, "tensorboard")
    curves = board(folder)
    (found,) = load_runs([folder]).finished
    seen = [value for _, value in curves["accuracy/seen"]]
    assert seen == pytest.approx(found.seen.tolist(), rel=1e-6)
    assert curves["accuracy/average"][-1][1] == pytest.approx(found.values["a_avg_micro"])
    for column in range(3):
        points = curves[f"accuracy/experience_{column:02d}"]
        assert [step for step, _ in points] == list(range(column, 3))
        wanted = found.matrix[column:, column].tolist()
        assert [value for _, value in points] == pytest.approx(wanted, rel=1e-6)
    events = read_events(folder)
    for name in ("train", "freeze", "evaluation"):
        spent = [
            (each.experience, each.seconds)
            for each in events
            if each.values.get("name") == name or each.event == name
        ]
        assert curves[f"seconds/{name}"] == [
            (at, pytest.approx(each, abs=1e-6)) for at, each in spent
        ]
    added = [each.added for each in events if each.event == "parameters"]
    assert [value for _, value in curves["parameters/added"]] == added
    # LAE trains two epochs in experience 0, then one that freezes its adapters and another one.
    assert [step for step, _ in curves["loss/train"]] == [0, 1, 3, 5]
    assert [step for step, _ in curves["loss/freeze"]] == [2, 4]
    assert all(value > 0 for _, value in curves["loss/train"])


def stop_at(patch: pytest.MonkeyPatch, kind: str, count: int) -> None:
    """Interrupts after that many steps, or before that many evaluations."""
    after = AdapterStrategy._after_training_iteration
    evaluated = AdapterStrategy._before_eval
    left = {"step": -1, "evaluation": -1, kind: count}

    def stop(kind: str) -> None:
        left[kind] -= 1
        if left[kind] == 0:
            raise KeyboardInterrupt

    def step(self: Any, **kwargs: Any) -> None:
        after(self, **kwargs)
        stop("step")

    def evaluation(self: Any, **kwargs: Any) -> None:
        stop("evaluation")
        evaluated(self, **kwargs)

    patch.setattr(AdapterStrategy, "_after_training_iteration", step)
    patch.setattr(AdapterStrategy, "_before_eval", evaluation)


@pytest.mark.slow
def test_a_run_that_goes_on_has_every_point_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in evaluations and, with points kept after each step, in the middle of training."""
    expected = without_times(board(run(tmp_path / "straight", "tensorboard")))
    for place in (("step", 4), ("evaluation", 1), ("step", 8), ("evaluation", 1)):
        with monkeypatch.context() as patch:
            stop_at(patch, *place)
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / "stopped", "tensorboard", checkpoint_minutes=0)
    found = board(run(tmp_path / "stopped", "tensorboard", checkpoint_minutes=0))
    assert without_times(found) == expected
    assert {name: len(points) for name, points in found.items()} == {
        name: len({step for step, _ in points}) for name, points in found.items()
    }


@pytest.mark.slow
def test_a_finished_run_is_given_its_curves_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = without_times(board(run(tmp_path / "with", "tensorboard")))
    folder = run(tmp_path / "without")
    assert not (folder / "tensorboard").exists()
    monkeypatch.setattr(AdapterStrategy, "train", lambda *_, **__: pytest.fail("ran again"))
    run(tmp_path / "without", "tensorboard")
    assert without_times(board(folder)) == expected
    run(tmp_path / "without", "tensorboard")
    assert without_times(board(folder)) == expected, "no point is there twice"


def test_a_method_that_is_not_trained_has_no_loss(tmp_path: Path) -> None:
    curves = board(run(tmp_path, "tensorboard", strategy="simplecil"))
    assert len(curves["accuracy/seen"]) == 3
    assert not [name for name in curves if name.startswith("loss/")]


class Recorder(BaseLogger):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.points: Curves = {}

    def log_single_metric(self, name: str, value: float, x_plot: int) -> None:
        self.points.setdefault(name, []).append((x_plot, value))


def test_plain_avalanche_code_has_the_same_curves(make_stream: Any, tiny_vit: Any) -> None:
    """Avalanche's own metrics are the oracle; a test stream of all experiences changes nothing."""
    stream = make_stream([[0, 1], [2, 3]])
    ours, theirs = Recorder(), Recorder()
    metrics = accuracy_metrics(experience=True), loss_metrics(epoch=True)
    strategy = LAE(
        backbone=tiny_vit,
        config=LAEConfig(epochs=2, freeze_epochs=1, batch_size=8),
        plugins=[MethodLog([ours])],
        evaluator=EvaluationPlugin(*metrics, loggers=[theirs]),
    )
    for experience in stream.train_stream:
        strategy.train(experience)
        strategy.eval(stream.test_stream)
        strategy.eval(stream.test_stream)  # a second look is no second point

    def measured(name: str) -> list[float]:
        return [value for _, value in theirs.points[name]]

    loss = measured("Loss_Epoch/train_phase/train_stream")
    told = [*ours.points["loss/train"], *ours.points["loss/freeze"]]
    assert dict(told) == {at: pytest.approx(value, rel=1e-6) for at, value in enumerate(loss)}
    first, second = (
        [100 * share for share in measured(f"Top1_Acc_Exp/eval_phase/test_stream/Exp00{each}")]
        for each in (0, 1)
    )
    told = [each for _, each in ours.points["accuracy/experience_00"]]
    assert told == pytest.approx([first[0], first[2]])
    assert ours.points["accuracy/experience_01"] == [(1, pytest.approx(second[2]))]
    both = pytest.approx((first[2] + second[2]) / 2)  # as many images in each
    assert ours.points["accuracy/seen"] == [(0, first[0]), (1, both)]


def offline(folder: Path) -> list[dict[str, float]]:
    """Rows of an offline run's file: LevelDB's log format, a protocol buffer a record."""
    wandb.teardown()  # its service writes the rest of the file when it ends
    (path,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    content, place, whole, rows = path.read_bytes(), 7, b"", []
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        whole = (b"" if kind in (1, 2) else whole) + content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record.FromString(whole)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({(e.key or ".".join(e.nested_key)): float(e.value_json) for e in items})
    return rows


def as_curves(rows: list[dict[str, float]]) -> Curves:
    curves: Curves = {}
    for row in rows:
        at = int(row["epoch" if "epoch" in row else "experience"])
        for name, value in row.items():
            if "/" in name:
                curves.setdefault(name, []).append((at, value))
    return curves


@pytest.mark.slow
def test_weights_and_biases_gets_the_same_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = run(tmp_path / "straight", "tensorboard", "wandb")
    expected = without_times(as_curves(offline(folder)))
    drawn = without_times(board(folder))
    assert expected.keys() == drawn.keys()
    for name, points in drawn.items():
        assert expected[name] == [(at, pytest.approx(value)) for at, value in points]

    evaluate = AdapterStrategy.eval
    calls: list[int] = []

    def stop(self: Any, *arguments: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(self, *arguments, **kwargs)

    monkeypatch.setattr(AdapterStrategy, "eval", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", "wandb")
    stopped = run(tmp_path / "stopped", "wandb")
    assert without_times(as_curves(offline(stopped))) == expected


class Online:
    """A run of the service that was resumed: it knows two experiences and three epochs."""

    def __init__(self) -> None:
        self.summary = {"experience": 1, "epoch": 2}
        self.rows: list[dict[str, float]] = []

    def define_metric(self, *_: str, **__: str) -> None:
        pass

    def log(self, row: dict[str, float]) -> None:
        self.rows.append(row)

    def finish(self, **_: bool) -> None:
        pass


@pytest.mark.slow
def test_what_the_service_has_is_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(tmp_path)
    online = Online()
    monkeypatch.setattr(wandb, "init", lambda **_: online)
    log = WandbLog(tmp_path, "name", "key")
    MethodLog([log]).restore(folder, 3)
    log.close()
    assert [row["epoch"] for row in online.rows if "epoch" in row] == [3, 4, 5]
    assert [row["experience"] for row in online.rows if "experience" in row] == [2]


def test_a_service_that_cannot_be_reached_ends_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(InputError, match="logger 'wandb' must .* got: No API key configured.$"):
        run(tmp_path, "wandb")


def test_an_unknown_logger_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    command = ["run", "--strategy", "simplecil", "--logger", "tensorbord", "--out"]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "runs")])
    assert result.exit_code == 2
    assert "unknown logger 'tensorbord'; did you mean 'tensorboard'?" in result.output
    assert not (tmp_path / "runs").exists()


def test_loggers_change_nothing_about_a_run(tmp_path: Path) -> None:
    plain, told = run(tmp_path / "plain"), run(tmp_path / "told", "tensorboard")
    assert (plain / "predictions.parquet").read_bytes() == (
        told / "predictions.parquet"
    ).read_bytes()
    states = [
        sorted(each.read_bytes() for each in folder.rglob("*.safetensors"))
        for folder in (plain, told)
    ]
    assert states[0] == states[1]
    assert torch.is_grad_enabled()
