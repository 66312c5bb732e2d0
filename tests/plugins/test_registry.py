"""Names from files, modules, installed packages and Python; what is broken stays alone."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cl_adapters.benchmarks.api import run
from cl_adapters.benchmarks.running.batch import expand
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.cli import app
from cl_adapters.errors import InputError
from cl_adapters.plugins.digests import source_digest
from cl_adapters.plugins.registry import label
from cl_adapters.records.run_record import RunRecord
from cl_adapters.strategies import STRATEGY_NAMES, find_strategy
from cl_adapters.strategies.simplecil import SimpleCIL

TINY = {"backbone": "test_vit", "weights": "random", "image_size": 32, "increment": 5}

METHOD = '''
"""A method in a file of its own."""

from cl_adapters.strategies.simplecil import SimpleCIL, SimpleCILConfig


class MineConfig(SimpleCILConfig):
    """Options of Mine."""

    extra: int = 3


class Mine(SimpleCIL):
    """Class means, under another name."""

    config_class = MineConfig


class Other:
    """Something else."""
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(METHOD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def install(
    folder: Path, name: str, points: dict[str, dict[str, str]], version: str = "1.2"
) -> None:
    """Writes what pip leaves of a package with entry points."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, each in points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in each.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def test_a_class_in_a_file_is_a_strategy(folder: Path) -> None:
    found = find_strategy("mine.py:Mine")
    assert found.__name__ == "Mine"
    assert issubclass(found, SimpleCIL)
    assert find_strategy("mine.py:Mine") is found
    assert str(folder) not in sys.path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py:Mine", "plugin file 'nowhere.py' must be readable"),
        ("mine.py:Mime", "unknown strategy of mine.py 'Mime'; did you mean 'Mine'"),
        ("mine.py:Other", "strategy 'mine.py:Other' must be a class derived from AdapterStrategy"),
        ("mine.py", "must have the form file.py:Name, got 'mine.py'"),
        ("broken.py:Mine", "strategy 'broken.py:Mine' must be importable, got ZeroDivisionError"),
        ("syntax.py:Mine", "must be importable, got SyntaxError: .* line 1"),
        ("exits.py:Mine", "must be importable, got SystemExit"),
        ("no_such_package.inside:Mine", "module 'no_such_package.inside' must be importable"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_sentence(
    folder: Path, name: str, message: str
) -> None:
    (folder / "broken.py").write_text("1 / 0\n")
    (folder / "syntax.py").write_text("def\n")
    (folder / "exits.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(InputError, match=message) as caught:
        find_strategy(name)
    assert "\n" not in str(caught.value)


def test_installed_packages_bring_names_and_broken_ones_break_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {
        "mine": "mine:Mine",
        "sema": "mine:Mine",
        "gone": "mine_gone:Mine",
        "odd": "mine:Other",
    }
    install(folder, "my-package", {"cl_adapters.strategies": points})
    monkeypatch.syspath_prepend(folder)
    assert find_strategy("mine").__name__ == "Mine"
    assert find_strategy("sema").__module__ == "cl_adapters.strategies.sema"
    assert STRATEGY_NAMES.version("mine") == ("my-package", "1.2")
    entries = {(each.name, each.origin): each for each in STRATEGY_NAMES.entries()}
    assert entries["lae", "built in"].value is not None
    assert entries["mine", "my-package 1.2"].value is find_strategy("mine")
    assert "taken by a built-in" in entries["sema", "my-package 1.2"].problem
    assert "No module named 'mine_gone'" in entries["gone", "my-package 1.2"].problem
    assert "derived from AdapterStrategy" in entries["odd", "my-package 1.2"].problem
    with pytest.raises(InputError, match="'gone' of my-package 1.2 must be importable"):
        find_strategy("gone")
    text = CliRunner().invoke(app, ["list", "strategies"]).output
    assert "my-package 1.2" in text
    assert "broken: strategy 'gone' of my-package 1.2 must be importable" in text
    monkeypatch.delitem(sys.modules, "mine")


def test_two_packages_with_one_name_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(folder, "one", {"cl_adapters.strategies": {"twice": "mine:Mine"}})
    install(folder, "two", {"cl_adapters.strategies": {"twice": "mine:Other"}})
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(
        InputError, match="'twice' must come from one package, got one 1.2, two 1.2"
    ):
        find_strategy("twice")


def test_only_what_is_asked_for_is_imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "loud.py").write_text("raise RuntimeError('imported')\n")
    install(folder, "loud-package", {"cl_adapters.strategies": {"loud": "loud:Mine"}})
    monkeypatch.syspath_prepend(folder)
    find_strategy("lae")
    assert "loud" in STRATEGY_NAMES
    with pytest.raises(InputError, match="unknown strategy 'lod'; did you mean 'loud'"):
        find_strategy("lod")
    assert "loud" not in sys.modules


def test_options_reach_a_strategy_from_a_file(folder: Path) -> None:
    given = {**TINY, "strategy": "mine.py:Mine,simplecil"}
    settings = ["cosine_scale=4", "mine.py:Mine.extra=5", "mine.Mine.batch_size=7"]
    one, two = expand(given, recipe=None, seeds=1, settings=settings)
    assert one.options == {"cosine_scale": 4.0, "extra": 5, "batch_size": 7}
    assert two.options == {"cosine_scale": 4.0}
    with pytest.raises(InputError, match="option `extra`"):
        expand(given, recipe=None, seeds=1, settings=["extra=none"])
    (folder / "recipe.toml").write_text('[options."mine.py:Mine"]\nextra = 9\n')
    one, _ = expand(given, recipe=folder / "recipe.toml", seeds=1, settings=[])
    assert one.options == {"extra": 9}


def test_a_changed_file_is_another_run(folder: Path) -> None:
    (first,) = run("mine.py:Mine", out=folder / "runs", **TINY)
    assert run("mine.py:Mine", out=folder / "runs", **TINY) == [first]
    record = RunRecord.read(first)
    assert record.strategy == "mine.Mine"
    assert first.parent.name == "mine.Mine"
    assert record.config["strategy"] == "mine.py:Mine"
    assert record.config["plugins"] == {"mine.py:Mine": source_digest("mine.py:Mine")}
    (folder / "mine.py").write_text(METHOD + "\n# changed\n")
    (second,) = run("mine.py:Mine", out=folder / "runs", **TINY)
    assert second != first
    with pytest.raises(InputError, match="plugin 'mine.py:Mine' must be as the recipe knows it"):
        prepare(RunConfig.parse(record.config))
    (folder / "mine.py").write_text(METHOD)
    assert prepare(RunConfig.parse(record.config)).record.directory == record.directory


def test_a_run_of_built_in_names_says_nothing_of_plugins(folder: Path) -> None:
    (path,) = run("simplecil", out=folder / "runs", **TINY)
    assert "plugins" not in RunRecord.read(path).config


def test_python_code_hands_over_a_class(folder: Path) -> None:
    kind = find_strategy("mine.py:Mine")
    (path,) = run(kind, out=folder / "runs", **TINY)
    assert json.loads((path / "run.json").read_text())["config"]["strategy"] == "mine.py:Mine"
    assert STRATEGY_NAMES.reference(SimpleCIL) == "simplecil"
    assert STRATEGY_NAMES.reference("lae") == "lae"

    class Local(SimpleCIL):
        """Lives in a function."""

    with pytest.raises(InputError, match="must stand at the top level of a file"):
        STRATEGY_NAMES.reference(Local)


def test_detectors_pets_streams_and_backbones_come_from_files(folder: Path) -> None:
    (folder / "parts.py").write_text(
        '''
import timm
import torch
from torch import nn

from cl_adapters.benchmarks.data.sources import array_source
from cl_adapters.vit.pretrained import frozen_backbone
from cl_adapters.shift import find_detector


class Shifted(find_detector("ks")):
    """A detector."""


class Gain(nn.Module):
    """A gain for each channel."""

    slot, default_size = "mlp", 1

    def __init__(self, embed_dim, size, *, generator):
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(size, embed_dim))

    def forward(self, inputs):
        return inputs * self.gain.sum(dim=0)


def stripes():
    """Stripes."""
    images = torch.rand(12, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    labels = [0, 1, 2] * 4
    return array_source("stripes", (images, labels), (images, labels))


def tiny(image_size=None):
    """A tiny network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = timm.create_model("test_vit", num_classes=0, img_size=image_size or 32)
    return frozen_backbone(vit, "tiny")
'''
    )
    options = {"finetune.epochs": 1, "finetune.peft": "parts.py:Gain"}
    recipe = {"stream": "parts.py:stripes", "backbone": "parts.py:tiny", "image_size": 32}
    (path,) = run("finetune", out=folder / "runs", options=options, increment=2, **recipe)
    record = RunRecord.read(path)
    assert set(record.config["plugins"]) == {"parts.py:stripes", "parts.py:tiny", "parts.py:Gain"}
    assert record.stream == "stripes"
    sema = prepare(
        RunConfig.parse({**TINY, "strategy": "sema", "options": {"detector": "parts.py:Shifted"}})
    )
    assert sema.record.config["plugins"].keys() == {"parts.py:Shifted"}
    for bad in ({"stream": "parts.py:Gain"}, {"backbone": "parts.py:stripes"}):
        with pytest.raises(
            InputError, match="must be a function of (no arguments|image_size), got"
        ):
            prepare(RunConfig.parse({**TINY, "strategy": "simplecil", "weights": None, **bad}))


def test_labels_are_harmless() -> None:
    assert label("../../etc/pass wd.py:Mine") == "pass_wd.Mine"
    assert label("..") == "plugin"
    assert label("a/b") == "a_b"
