"""From what a user gives to recipes, and Ctrl-C among several runs."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cl_adapters.benchmarks.data.sources import ImageSource
from cl_adapters.benchmarks.running import batch, runner
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.errors import EarlierNameWarning, InputError
from cl_adapters.records.data_notes import data_sentences
from cl_adapters.records.run_record import RunRecord
from cl_adapters.reports.groups import group_runs
from cl_adapters.reports.load import load_runs
from tests.benchmarks.killable import stripes
from tests.benchmarks.running.small_runs import BACKBONE, run


@pytest.fixture(scope="module")
def source() -> ImageSource:
    return stripes(train=8, test=4)


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
    with pytest.warns(EarlierNameWarning, match="option `pet` is now called `peft`"):
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


def pictures(root: Path) -> Path:
    """Four classes of six images, a broken link, a hidden file, a CMYK image and a third split."""
    for kind in range(4):
        for number in range(6):
            folder = root / ("Training" if number < 4 else "Testing") / f"class {kind}"
            folder.mkdir(parents=True, exist_ok=True)
            colour = (60 * kind, 40 * number, 90)
            Image.new("RGB", (8, 8), colour).save(folder / f"{number}.png")
    Image.new("CMYK", (8, 8), (9, 99, 0, 0)).save(folder / "print.tif")
    (folder / "gone.png").symlink_to(root / "nowhere")
    (root / ".DS_Store").write_bytes(b"x")
    (root / "valid").mkdir()
    Image.new("RGB", (8, 8)).save(root / "valid" / "0.png")
    return root


def test_a_run_says_prints_and_shows_what_it_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the console, in `run.json` and on the page, in the same words."""
    settings = {"strategy": "simplecil", "data": str(pictures(tmp_path / "photos")), **BACKBONE}
    configs = [RunConfig.parse({**settings, "seed": seed}) for seed in range(2)]
    folders = batch.run_batch(configs, tmp_path / "runs")
    printed = capsys.readouterr().err
    for folder in folders:
        assert RunRecord.read(folder).data == {
            "layout": "train in 'Training', test in 'Testing'; 'valid' beside them is not used (`test_set` chooses)",
            "left_out": {
                "hidden": 1, "a link that leads nowhere": 1, "an image of another split": 1,
            },
            "images": {"in CMYK, turned into RGB as Pillow does": 1},
        }  # fmt: skip
    sentences = data_sentences(RunRecord.read(folders[0]).data)
    assert len(sentences) == 3
    for sentence in sentences:
        assert printed.count(f"note: {sentence}\n") == 1
    (group,) = group_runs(load_runs([tmp_path / "runs"]).finished)
    assert group.data == sentences
    (tmp_path / "photos" / "more.txt").write_text("x", "utf-8")
    assert batch.run_batch(configs, tmp_path / "runs", quiet=True) == folders


def test_what_was_left_out_is_no_part_of_the_protocol(tmp_path: Path) -> None:
    root = pictures(tmp_path / "photos")
    settings = {"strategy": "simplecil", "data": str(root), **BACKBONE}
    before = batch.prepare(RunConfig.parse(settings)).record
    (root / "notes.txt").write_text("x", "utf-8")
    after = batch.prepare(RunConfig.parse(settings)).record
    assert after.data != before.data
    assert (after.fingerprint, after.directory) == (before.fingerprint, before.directory)
