"""From what users write to paths: `~`, colons, bytes that are no text; in options and recipes."""

import os
import shutil
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cl_adapters.benchmarks.api import run
from cl_adapters.benchmarks.data.sources import open_source
from cl_adapters.benchmarks.running.recipe import read_recipe
from cl_adapters.cache.feature_cache import open_cache
from cl_adapters.cli import app
from cl_adapters.cli.endings import guarded
from cl_adapters.errors import InputError
from cl_adapters.paths import user_path
from cl_adapters.plugins.digests import source_digest
from cl_adapters.records.run_record import find_runs
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.report import write_report
from tests.benchmarks.running.test_faults import write_images

RUN = ["run", "--strategy", "simplecil", "--image-size", "16", "--quiet", "--cache", "off"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with images in `photos`; the working folder lies beside it."""
    home, here = tmp_path / "home", tmp_path / "here"
    write_images(home / "photos")
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    return home


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result.exit_code, result.output


def test_a_tilde_is_the_home_folder_in_options_and_recipes(home: Path) -> None:
    Path("recipe.toml").write_text('data = "~/photos"\nincrement = 2\n')
    assert call(*RUN, "--recipe", "recipe.toml", "--out=~/runs") == (0, "")
    assert len(find_runs([home / "runs"])) == 1
    assert not Path("~").exists()
    assert len(load_runs([home / "runs"]).finished) == 1
    code, text = call("report", "~/runs", "--out=~/report")
    assert code == 0, text
    assert (home / "report" / "report.html").is_file()
    assert open_source("~/photos").classes == ("ant", "bee", "cat", "dog")
    cache = open_cache("~/cache")
    assert cache is not None
    assert cache.folder == home / "cache"


def test_a_command_is_given_lists_of_paths_without_tildes(home: Path) -> None:
    given: list[Path] = []

    def command(paths: list[Path]) -> None:
        given.extend(paths)

    guarded(command)(paths=[Path("~/runs"), Path("more")])
    assert given == [home / "runs", Path("more")]


def test_a_tilde_is_the_home_folder_from_python_too(home: Path) -> None:
    (folder,) = run("simplecil", data="~/photos", image_size=16, out="~/runs", cache="~/cache")
    assert folder.is_relative_to(home / "runs")
    assert (home / "cache").is_dir()
    assert [each.folder for each in load_runs(["~/runs"]).finished] == [folder]
    (home / "report").touch()
    with pytest.raises(InputError, match=f"{home}/report' must be a directory"):
        write_report(["~/runs"], "~/report")
    assert not Path("~").exists()


def test_a_plugin_below_the_home_folder_is_known_by_its_digest(home: Path) -> None:
    (home / "mine.py").write_text("def make(): ...")
    assert source_digest("~/mine.py:make") == source_digest(f"{home}/mine.py:make")


@pytest.mark.parametrize("option", ["--data", "--weights", "--backbone", "--stream"])
def test_an_empty_text_is_refused_and_no_default_is_taken(option: str, home: Path) -> None:
    """What a shell makes of "$DATA" where nobody has set it: else the built-in digits are run."""
    key = option.removeprefix("--")
    assert call(*RUN, option, "") == (2, f"cl-adapters: {option} must not be empty, got ''\n")
    assert not list(Path.cwd().iterdir())
    Path("empty.toml").write_text(f"{key} = ''")
    code, text = call(*RUN, "--recipe", "empty.toml")
    assert code == 2
    assert text.endswith(f"key `{key}` must not be empty text, got ''\n")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device here")
@pytest.mark.parametrize(
    "arguments",
    [[*RUN, "--recipe"], ["sweep"], ["tune", "--strategy", "finetune", "--recipe"]],
)
def test_a_device_without_an_end_is_no_file_of_settings(arguments: list[str], home: Path) -> None:
    code, text = call(*arguments, "/dev/zero")
    assert code == 2
    assert "must be a readable TOML file, got: more than 16,777,216 bytes" in text


def test_a_pipe_may_hold_a_recipe(home: Path) -> None:
    os.mkfifo("pipe")
    threading.Thread(target=Path("pipe").write_text, args=("increment = 5\n",)).start()
    assert read_recipe(Path("pipe")) == {"increment": 5}


@pytest.mark.parametrize("out", [".", "./", "photos", "photos/ant"])
def test_no_run_is_written_into_its_own_data(
    out: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs lie in a folder with the data's name: beside the data, that is the data."""
    monkeypatch.chdir(home)
    before = sorted(home.rglob("*"))
    code, text = call(*RUN, "--data", "photos", "--out", out)
    assert code == 2
    assert "--out must lead outside of the data, got" in text
    assert text.endswith("which lies in 'photos'\n")
    assert sorted(home.rglob("*")) == before


def test_a_colon_is_part_of_a_name(home: Path) -> None:
    code, text = call(*RUN, "--data", str(home / "photos"), "--out", "exp1:lr0.1")
    assert (code, text) == (0, "")
    assert len(load_runs([Path("exp1:lr0.1")]).finished) == 1
    shutil.rmtree("exp1:lr0.1")


@pytest.mark.parametrize("name", ["s3:table.parquet", "~/photos:old.parquet"])
def test_a_table_whose_name_looks_like_an_address_is_a_file(home: Path, name: str) -> None:
    user_path(name).write_text("no table")
    with pytest.raises(InputError, match="must be a readable parquet file"):
        open_source(name)
    assert home.is_dir()


def test_paths_that_cannot_be_are_named() -> None:
    with pytest.raises(InputError, match="path must begin with a home folder that exists"):
        user_path("~nobody-of-that-name/runs")
    with pytest.raises(InputError, match="path must be one that the system can have"):
        user_path("a\0b")


def test_a_folder_of_runs_whose_name_is_no_text_works(home: Path) -> None:
    out = os.fsdecode(b"runs\xff")
    code, text = call(*RUN, "--data", str(home / "photos"), "--out", out)
    assert (code, text) == (0, "")
    assert call("list", "runs", "--out", out)[0] == 0


def test_images_whose_folder_is_no_text_are_refused_in_a_sentence(home: Path) -> None:
    name = os.fsdecode(b"photos\xff")
    (home / "photos").rename(name)
    code, text = call(*RUN, "--data", name)
    assert code == 2
    assert "names must be text in UTF-8, got" in text
    assert "photos\\udcff" in text
    assert text.count("\n") == 1


def test_a_path_that_is_too_long_is_no_promise(home: Path) -> None:
    code, text = call(*RUN, "--data", str(home / "photos"), "--out", 300 * "x")
    assert code == 2
    assert "is kept" not in text
    assert text.count("\n") == 1
