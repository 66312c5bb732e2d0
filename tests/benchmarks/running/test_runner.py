"""Runs from recipe to run directory: records, resuming, failing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

from cl_adapters.benchmarks.data.sources import ImageSource
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.errors import InputError, RunError
from cl_adapters.records.events import read_events
from cl_adapters.records.learned import read_checkpoint
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions
from cl_adapters.strategies.core.strategy import AdapterStrategy
from tests.benchmarks.conftest import InterruptedAt
from tests.benchmarks.killable import stripes
from tests.benchmarks.running.small_runs import config, run
from tests.marks import by_default


@pytest.fixture(scope="module")
def source() -> ImageSource:
    return stripes(train=8, test=4)


def test_a_run_directory_holds_what_design_says(source: ImageSource, tmp_path: Path) -> None:
    folder = run(source, tmp_path, seed=2)
    assert folder.parent == tmp_path / "stripes" / "lae"
    assert folder.name.startswith("seed2-")
    record = RunRecord.read(folder)
    assert (record.state, record.experiences_done, record.error) == ("finished", 3, None)
    assert sorted(record.classes) == [str(index) for index in range(6)]
    assert record.experiences == [[0, 1], [2, 3], [4, 5]]
    assert record.fingerprint["weights"]
    assert record.fingerprint["pixels"]["image_size"] == 32
    assert set(record.versions) >= {"python", "torch", "timm", "avalanche-lib", "cl-adapters"}
    assert record.parameters["added"] > 0
    RunConfig.parse(record.config)  # the recipe that repeats the run
    predictions = read_predictions(folder)
    assert predictions.groupby("experience").size().tolist() == [8, 16, 24]
    kinds = {(event.event, event.experience) for event in read_events(folder)}
    wanted = ("phase", "evaluation", "parameters", "memory", "cache")
    voted = {("votes", 1), ("votes", 2)}  # in experience 0 LAE's online expert answers alone
    assert kinds == {(kind, experience) for kind in wanted for experience in range(3)} | voted
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "experience-0000", "experience-0001", "experience-0002",
    ]  # fmt: skip


def test_predictions_are_those_of_the_model(source: ImageSource, tmp_path: Path) -> None:
    """Recomputes the last evaluation by hand from the last checkpoint."""
    prepared = prepare(config(), source=source)
    folder = runner.run(prepared, tmp_path)
    strategy, plan = prepared.strategy, prepared.plan
    rows = read_predictions(folder).query("experience == 2").set_index("sample")
    state = read_checkpoint(folder / "checkpoints", 2).state
    assert all(torch.equal(state[key], value) for key, value in strategy.learned_state().items())
    for index in range(len(source.test)):
        image = prepared.preprocess.evaluate(source.test.read(index))
        with torch.no_grad():
            probabilities = strategy.model.eval()(image[None]).logits[0].double().softmax(dim=0)
        row = rows.loc[index]
        target = plan.order.index(int(source.test.targets[index]))
        assert row["target"] == target
        assert row["target_experience"] == target // 2
        assert row["prediction"] == int(probabilities.argmax())
        assert row["confidence"] == pytest.approx(float(probabilities.max()), abs=1e-4)
        assert row["nll"] == pytest.approx(-float(probabilities[target].log()), abs=1e-3)


def test_phases_count_seconds_and_images(source: ImageSource, tmp_path: Path) -> None:
    folder = run(source, tmp_path)
    phases = [event for event in read_events(folder) if event.event == "phase"]
    assert [(event.experience, event.name, event.images) for event in phases] == [
        (0, "train", 32), (1, "freeze", 16), (1, "train", 16), (1, "frozen", 16),
        (2, "freeze", 16), (2, "train", 16), (2, "frozen", 16),
    ]  # fmt: skip
    assert all(event.seconds > 0 for event in phases)
    passes = [event.passes for event in read_events(folder) if event.event == "evaluation"]
    assert passes == [1, 2, 2], "online alone, then online and offline"


@pytest.mark.parametrize(
    "strategy", by_default(["finetune", "avalanche:Naive"], ["avalanche:Naive"])
)
def test_what_augmentation_shows_depends_on_nothing_else_that_draws(
    source: ImageSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    changes = {"strategy": strategy, "increment": 3, "augment": "crop_flip"}
    straight = read_predictions(run(source, tmp_path / "straight", **changes))
    shown: list[bytes] = []
    step = AdapterStrategy.training_epoch

    def disturbed(strategy: AdapterStrategy, **arguments: Any) -> None:
        torch.rand(7)
        dataset = strategy.adapted_dataset
        before = torch.get_rng_state()
        inputs = [dataset[0][0], dataset[0][0]]
        assert torch.equal(*inputs), "a moment shows one view of an image"
        assert torch.equal(torch.get_rng_state(), before)
        shown.append(inputs[0].numpy().tobytes())
        step(strategy, **arguments)

    monkeypatch.setattr(AdapterStrategy, "training_epoch", disturbed)
    assert read_predictions(run(source, tmp_path / "disturbed", **changes)).equals(straight)
    assert len(shown) == len(set(shown)) == 4, "two epochs of two experiences, a new view in each"


@pytest.mark.parametrize("strategy", by_default(["lae", "simplecil", "finetune", "joint"], ["lae"]))
def test_a_run_killed_after_any_experience_ends_like_the_straight_one(
    source: ImageSource, tmp_path: Path, interrupted_at: InterruptedAt, strategy: str
) -> None:
    straight = run(source, tmp_path / "straight", strategy=strategy, augment="crop")
    expected = read_predictions(straight)
    for killed_at in (0, 1, 2):
        out = tmp_path / f"killed-{killed_at}"
        with interrupted_at(killed_at):
            run(source, out, strategy=strategy, augment="crop")
        (folder,) = (path.parent for path in out.rglob("run.json"))
        assert RunRecord.read(folder).state == "interrupted"
        assert RunRecord.read(folder).experiences_done == killed_at
        assert run(source, out, strategy=strategy, augment="crop") == folder
        pd.testing.assert_frame_equal(read_predictions(folder), expected, check_exact=True)
        assert len(read_events(folder)) == len(read_events(straight))


def test_work_torn_before_run_json_is_done_again(source: ImageSource, tmp_path: Path) -> None:
    """Predictions, events and checkpoint of experience 2 are there, but `run.json` does not count it."""
    folder = run(source, tmp_path)
    expected = read_predictions(folder)
    record = RunRecord.read(folder)
    record.state, record.experiences_done = "running", 2
    record.write(folder)
    run(source, tmp_path)
    pd.testing.assert_frame_equal(read_predictions(folder), expected, check_exact=True)
    assert sum(event.event == "evaluation" for event in read_events(folder)) == 3


def test_a_finished_run_is_left_alone_and_restart_repeats_it(
    source: ImageSource, tmp_path: Path
) -> None:
    folder = run(source, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    run(source, tmp_path)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    assert before == after
    expected = read_predictions(folder)
    runner.run(prepare(config(), source=source), tmp_path, restart=True)
    assert (folder / "run.json").stat().st_mtime_ns > before[folder / "run.json"]
    pd.testing.assert_frame_equal(read_predictions(folder), expected, check_exact=True)


def test_global_random_states_are_as_before(source: ImageSource, tmp_path: Path) -> None:
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    run(source, tmp_path, augment="crop")
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002


def test_a_seed_changes_order_and_weights(source: ImageSource, tmp_path: Path) -> None:
    one, two = (RunRecord.read(run(source, tmp_path, seed=seed)) for seed in (0, 1))
    assert one.classes != two.classes
    assert one.fingerprint == two.fingerprint, "the protocol is the same"


def test_running_out_of_memory_is_a_failed_run(
    source: ImageSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhaust(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(AdapterStrategy, "train", exhaust)
    with pytest.raises(RunError, match="memory must hold the model and a batch"):
        run(source, tmp_path)
    (folder,) = (path.parent for path in tmp_path.rglob("run.json"))
    assert RunRecord.read(folder).state == "failed"


def test_two_writers_are_refused(source: ImageSource, tmp_path: Path) -> None:
    prepared = prepare(config(), source=source)
    folder = tmp_path / prepared.record.directory
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"), pytest.raises(InputError, match="must have one writer"):
        runner.run(prepared, tmp_path)


def test_a_failed_run_says_why_and_keeps_what_it_had(
    source: ImageSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(config(strategy="finetune"), source=source)
    loss = type(prepared.strategy).batch_loss

    def explode(self: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        factor = torch.inf if len(self.classes_by_experience) == 2 else 1.0
        return loss(self, logits, targets) * factor

    monkeypatch.setattr(type(prepared.strategy), "batch_loss", explode)
    with pytest.raises(RunError, match="loss must stay finite .*, got inf in experience 1"):
        runner.run(prepared, tmp_path)
    (folder,) = (path.parent for path in tmp_path.rglob("run.json"))
    record = RunRecord.read(folder)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["experience-0000"]
    assert (record.state, record.experiences_done) == ("failed", 1)
    assert "experience 1" in str(record.error)
    assert read_predictions(folder)["experience"].unique().tolist() == [0]


def test_an_experience_that_is_too_small_is_refused_before_any_is_trained(
    source: ImageSource, tmp_path: Path
) -> None:
    small = config(strategy="sema", first=4, increment=1)  # 32, 8 and 8 images
    prepared = prepare(small, source=source)
    sentence = "experience 2 of 3 must hold at least 10 training images .* 'sema', got 8"
    with pytest.raises(InputError, match=sentence):
        runner.run(prepared, tmp_path)
    assert not prepared.strategy.classes_by_experience
    assert not list(tmp_path.rglob("run.json"))
    free = config(strategy="sema", first=4, increment=1, options={"policy": "never", "epochs": 1})
    assert RunRecord.read(runner.run(prepare(free, source=source), tmp_path)).state == "finished"


def test_the_record_is_a_recipe(source: ImageSource, tmp_path: Path) -> None:
    folder = run(source, tmp_path)
    again = RunConfig.parse(json.loads((folder / "run.json").read_text())["config"])
    assert runner.run(prepare(again, source=source), tmp_path) == folder


@pytest.mark.slow
def test_a_point_that_no_longer_fits_costs_its_experience_alone(
    source: ImageSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = run(source, tmp_path / "straight", strategy="finetune")
    step = AdapterStrategy.optimizer_step
    taken: list[int] = []

    def stop_in_experience_1(strategy: AdapterStrategy) -> None:
        taken.append(1)
        if len(taken) == 7:  # two epochs of two steps each an experience
            raise KeyboardInterrupt
        step(strategy)

    def again() -> Path:
        prepared = prepare(config(strategy="finetune"), source=source)
        return runner.run(prepared, tmp_path / "stopped", checkpoint_minutes=0)

    monkeypatch.setattr(AdapterStrategy, "optimizer_step", stop_in_experience_1)
    with pytest.raises(KeyboardInterrupt):
        again()
    monkeypatch.setattr(AdapterStrategy, "optimizer_step", step)
    with monkeypatch.context() as other:
        other.setattr("cl_adapters.strategies.core.checkpointing.load_optimizer", _other_groups)
        with pytest.raises(RunError, match="got another state: 3 groups; the same command begins"):
            again()
    assert RunRecord.read(next((tmp_path / "stopped").glob("*/*/*"))).experiences_done == 1
    pd.testing.assert_frame_equal(
        read_predictions(again()), read_predictions(straight), check_exact=True
    )


def _other_groups(*_: object) -> None:
    raise ValueError("3 groups")
