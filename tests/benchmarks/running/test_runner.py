"""Runs from recipe to run directory: records, resuming, and what a user may get wrong."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

from cl_adapters.benchmarks.data.sources import ImageSource
from cl_adapters.benchmarks.running import batch, runner
from cl_adapters.benchmarks.running.checkpoints import read_checkpoint
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.errors import InputError, RunError
from cl_adapters.records.events import read_events
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions
from cl_adapters.strategies.core.strategy import AdapterStrategy
from tests.benchmarks.conftest import InterruptedAt
from tests.benchmarks.killable import stripes

BACKBONE = {"backbone": "test_vit", "weights": "random", "image_size": 32}


@pytest.fixture(scope="module")
def source() -> ImageSource:
    return stripes(train=8, test=4)


def config(**changes: Any) -> RunConfig:
    options = {"epochs": 2, "batch_size": 8} if changes.get("strategy") != "simplecil" else {}
    if changes.get("strategy", "lae") == "lae":
        options["freeze_epochs"] = 1
    values = {"strategy": "lae", "increment": 2, "options": options, **BACKBONE, **changes}
    return RunConfig.parse(values)


def run(source: ImageSource, out: Path, **changes: Any) -> Path:
    return runner.run(prepare(config(**changes), source=source), out)


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
    kinds = {(event["event"], event["experience"]) for event in read_events(folder)}
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
    state = read_checkpoint(folder / "checkpoints", 2)
    assert all(torch.equal(state[key], value) for key, value in strategy.learned_state().items())
    for index in range(len(source.test)):
        image = prepared.preprocess.evaluate(source.test.read(index))
        with torch.no_grad():
            probabilities = strategy.model.eval()(image[None])[0].double().softmax(dim=0)
        row = rows.loc[index]
        target = plan.order.index(int(source.test.targets[index]))
        assert row["target"] == target
        assert row["target_experience"] == target // 2
        assert row["prediction"] == int(probabilities.argmax())
        assert row["confidence"] == pytest.approx(float(probabilities.max()), abs=1e-4)
        assert row["nll"] == pytest.approx(-float(probabilities[target].log()), abs=1e-3)


def test_phases_count_seconds_and_images(source: ImageSource, tmp_path: Path) -> None:
    folder = run(source, tmp_path)
    phases = [event for event in read_events(folder) if event["event"] == "phase"]
    assert [(event["experience"], event["name"], event["images"]) for event in phases] == [
        (0, "train", 32), (1, "freeze", 16), (1, "train", 16), (1, "frozen", 16),
        (2, "freeze", 16), (2, "train", 16), (2, "frozen", 16),
    ]  # fmt: skip
    assert all(event["seconds"] > 0 for event in phases)
    passes = [event["passes"] for event in read_events(folder) if event["event"] == "evaluation"]
    assert passes == [1, 2, 2], "online alone, then online and offline"


@pytest.mark.parametrize("strategy", ["finetune", "avalanche:Naive"])
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


@pytest.mark.parametrize("strategy", ["lae", "finetune", "joint", "simplecil"])
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
    assert sum(event["event"] == "evaluation" for event in read_events(folder)) == 3


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


def change_config(folder: Path) -> None:
    record = RunRecord.read(folder)
    record.config["increment"] = 3
    record.write(folder)


def edit(folder: Path) -> None:
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text.replace('"finished"', '"running"'))


def unfinish(folder: Path, done: int) -> None:
    record = RunRecord.read(folder)
    record.state, record.experiences_done = "running", done
    record.write(folder)


def damage(folder: Path, experience: int) -> None:
    path = folder / f"checkpoints/experience-{experience:04d}/learned.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def lose_predictions(folder: Path) -> None:
    (folder / "predictions.parquet").rename(folder / "lost.parquet")


@pytest.mark.parametrize("state", ["finished", "running"])
def test_lost_predictions_are_noticed(source: ImageSource, tmp_path: Path, state: Any) -> None:
    folder = run(source, tmp_path)
    record = RunRecord.read(folder)
    record.state = state
    record.write(folder)
    lose_predictions(folder)
    with pytest.raises(InputError, match="must hold the predictions of 3 experiences, got .* of 0"):
        run(source, tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change_config, "must belong to this recipe, but its config differs"),
        (edit, "must match its checksum, but it was damaged or edited; use --restart"),
    ],
)
def test_a_spoilt_directory_is_refused_and_kept(
    source: ImageSource, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = run(source, tmp_path)
    predictions = (folder / "predictions.parquet").read_bytes()
    spoil(folder)
    with pytest.raises(InputError, match=message):
        run(source, tmp_path)
    assert (folder / "predictions.parquet").read_bytes() == predictions


class Notes(runner.Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("damaged", [[1], [0, 1], []])
def test_of_damaged_checkpoints_the_one_before_is_used(
    source: ImageSource, tmp_path: Path, damaged: list[int]
) -> None:
    """Experiences 0 and 1 are done; what is lost with a checkpoint is trained again."""
    folder, progress = run(source, tmp_path), Notes()
    expected = (folder / "predictions.parquet").read_bytes()
    unfinish(folder, done=2)
    for experience in damaged:
        damage(folder, experience)
    runner.run(prepare(config(), source=source), tmp_path, progress=progress)
    assert (folder / "predictions.parquet").read_bytes() == expected
    again = {(): [], (1,): ["again from experience 1 on"], (0, 1): ["again from the first"]}
    wanted = again[tuple(damaged)]
    assert len(progress.notes) == len(wanted)
    for note, text in zip(progress.notes, wanted, strict=True):
        assert "experience-0001 must match its checksum" in note
        assert text in note


def test_a_checkpoint_of_a_newer_format_is_refused_and_one_of_format_1_read(
    source: ImageSource, tmp_path: Path
) -> None:
    folder = run(source, tmp_path)
    expected = (folder / "predictions.parquet").read_bytes()
    path = folder / "checkpoints/experience-0001/checkpoint.json"
    facts = json.loads(path.read_text())
    unfinish(folder, done=2)
    path.write_text(json.dumps({**facts, "format": 99}))
    with pytest.raises(InputError, match="experience-0001 must have a format .*, got 99: a newer"):
        run(source, tmp_path)
    path.write_text(
        json.dumps({key: facts[key] for key in ("experience", "sha256")} | {"format": 1})
    )
    run(source, tmp_path)
    assert (folder / "predictions.parquet").read_bytes() == expected


def test_another_version_is_said(source: ImageSource, tmp_path: Path) -> None:
    folder, progress = run(source, tmp_path), Notes()
    record = RunRecord.read(folder)
    record.state, record.experiences_done = "running", 2
    record.versions = {**record.versions, "torch": "1.0"}
    record.write(folder)
    runner.run(prepare(config(), source=source), tmp_path, progress=progress)
    (note,) = progress.notes
    assert note.startswith("lae seed 0 goes on under another version of torch: the rest may differ")


def test_an_unfinished_run_on_other_threads_is_named_and_no_other_one(
    source: ImageSource, tmp_path: Path
) -> None:
    def notes(**values: Any) -> list[str]:
        progress = Notes()
        runner.run(prepare(config(**values), source=source), tmp_path, progress=progress)
        return progress.notes

    assert notes(threads=1) == []
    assert notes(threads=2) == []  # the other is finished
    (folder,) = (
        path.parent
        for path in tmp_path.rglob("run.json")
        if RunRecord.read(path.parent).config["threads"] == 1
    )
    unfinish(folder, done=1)
    named = f"{folder} is unfinished and goes on with threads=1"
    assert notes() == [f"lae seed 0 begins a new run with no threads given; {named}"]
    assert notes(seed=1) == notes(increment=3) == []
    assert notes(threads=1) == []  # goes on with it


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "lea"}, "unknown strategy 'lea'; did you mean 'lae'"),
        ({"increment": 7}, "increment must be from 1 to the number of classes, 6, got 7"),
        ({"first": 9}, "first must be from 1 to the number of classes, 6, got 9"),
        ({"class_order": "0,1,2"}, "class order"),
        ({"backbone": "vit_tinny", "weights": None}, "unknown backbone 'vit_tinny'"),
        ({"image_size": 40}, "multiple of the patch size 16, got 40"),
        ({"input_range": "imagnet"}, "unknown input range 'imagnet'; did you mean 'imagenet'"),
        ({"device": "cuda:77"}, "device must be one that torch can use here, got 'cuda:77'"),
        ({"device": "abacus"}, "device must be one that torch can use here, got 'abacus'"),
        ({"augment": "flip"}, "recipe key `augment`: .*'crop_flip', got 'flip'"),
        ({"precision": "fp8"}, "recipe key `precision`: .*got 'fp8'"),
        ({"increment": 0}, "recipe key `increment`: .*greater than or equal to 1, got 0"),
        ({"inkrement": 2}, "unknown recipe key 'inkrement'; did you mean 'increment'"),
        ({"options": {"epochz": 2}}, "unknown option 'epochz'; did you mean 'epochs'"),
    ],
)
def test_bad_recipes_end_in_one_sentence_before_anything_is_written(
    source: ImageSource, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(source, tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(source: ImageSource, tmp_path: Path) -> None:
    (tmp_path / "stripes").write_text("a file where the runs should go")
    with pytest.raises(InputError, match="must be writable"):
        run(source, tmp_path)


def test_a_folder_that_cannot_be_written_to_is_named(source: ImageSource, tmp_path: Path) -> None:
    prepared = prepare(config(), source=source)
    (tmp_path / prepared.record.directory / ".lock").mkdir(parents=True)
    with pytest.raises(InputError, match=r"run directory .* must be writable, got: .*\.lock"):
        runner.run(prepared, tmp_path)


def expand(settings: list[str], strategy: str = "lae,simplecil", **given: Any) -> list[RunConfig]:
    return batch.expand({"strategy": strategy, **given}, recipe=None, seeds=2, settings=settings)


def test_options_reach_the_strategies_that_have_them() -> None:
    configs = expand(["epochs=10", "batch_size=7", "simplecil.cosine_scale=3"])
    assert [(each.strategy, each.seed) for each in configs] == [
        ("lae", 0), ("simplecil", 0), ("lae", 1), ("simplecil", 1),
    ]  # fmt: skip
    assert configs[0].options == {"epochs": 10, "batch_size": 7}
    assert configs[1].options == {"batch_size": 7, "cosine_scale": 3.0}


def test_groups_of_options_take_their_parts() -> None:
    settings = ["budget.parameters=2e6", "sema.budget.adapters=3", "expandable=1,4"]
    (config, _) = expand(settings, strategy="sema")
    assert config.options["budget"] == {"adapters": 3, "parameters": 2e6}
    assert config.options["expandable"] == [1, 4]
    with pytest.raises(InputError, match=r"option `budget.parameters`: .*greater than 0, got '-1'"):
        expand(["budget.parameters=-1"], strategy="sema")
    with pytest.raises(InputError, match=r"option `budget.euros`"):
        expand(["budget.euros=1"], strategy="sema")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["epochs"], "--set must have the form key=value, got 'epochs'"),
        (["epoch=3"], "options must be those of a strategy of this run, got 'epoch'"),
        (["joint.epochs=3"], "options must be those of a strategy of this run, got 'joint"),
        (["lae.cosine_scale=3"], "unknown option 'cosine_scale'"),
        (["epochs=none"], "option `epochs`: .*, got 'none'"),
        (["epochs=1"], "^option `freeze_epochs` must be below `epochs`, 1, got 3$"),
        (["lr=inf"], "option `lr`: .*finite number, got 'inf'"),
    ],
)
def test_bad_settings_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        expand(settings)


def test_a_recipe_file_gives_defaults_that_the_command_overrides(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('strategy = "lae"\nincrement = 3\nseed = 5\n[options]\nepochs = 9\n')
    configs = batch.expand({"increment": 4}, recipe=path, seeds=2, settings=["lr=0.1"])
    assert [each.seed for each in configs] == [5, 6]
    assert configs[0].increment == 4
    assert configs[0].options == {"epochs": 9, "lr": 0.1}
    path.write_text("strategy = 'lae'\n[options.lae]\npet = 'lora'\n")
    (one,) = batch.expand({}, recipe=path, seeds=1, settings=[])
    assert one.options == {"peft": "lora"}
    for text, message in (
        ("strategy = ','", "--strategy must name at least one of .*, got ','"),
        ("strategy = 'lae'\nseed = 'x'", "recipe key `seed` must be a whole number, got 'x'"),
        ("strategy = 'lae'\noptions = 'x'", "recipe key `options` must be a table, got 'x'"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            batch.expand({}, recipe=path, seeds=1, settings=[])
    path.write_text("increment = = 3")
    with pytest.raises(InputError, match="must be a readable TOML file"):
        batch.expand({}, recipe=path, seeds=1, settings=[])


def test_the_record_is_a_recipe(source: ImageSource, tmp_path: Path) -> None:
    folder = run(source, tmp_path)
    again = RunConfig.parse(json.loads((folder / "run.json").read_text())["config"])
    assert runner.run(prepare(again, source=source), tmp_path) == folder


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_during_a_clean_up_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # the handler runs here, and Python ignores what it raises

    heard: list[str] = []

    def run_that_cleans_up(*_: Any, progress: runner.Progress, **__: Any) -> Path:
        heard.append("before")
        Dying()
        heard.append("ignored")
        progress.advance("", 1)
        heard.append("never")
        return tmp_path

    monkeypatch.setattr(batch, "run", run_that_cleans_up)
    before = signal.getsignal(signal.SIGINT)
    config = RunConfig.parse({"strategy": "simplecil", "image_size": 16})
    with pytest.raises(KeyboardInterrupt):
        batch.run_batch([config], tmp_path, quiet=True)
    assert heard == ["before", "ignored"]
    assert signal.getsignal(signal.SIGINT) == before


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
