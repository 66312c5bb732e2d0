"""Options and listings under the names that they had: one sentence, and the same as today's."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cl_adapters.cli import app
from cl_adapters.records.run_record import RunRecord, find_runs
from tests.cli.test_cli import TINY

pytestmark = pytest.mark.filterwarnings("default::cl_adapters.errors.EarlierNameWarning")


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("word", ["pets", "pefts"])
def test_a_listing_is_known_by_its_earlier_name(word: str) -> None:
    _, today, silence = call("list", "peft")
    code, text, said = call("list", word)
    assert (code, text, silence) == (0, today, "")
    assert said == f"cl-adapters: listing '{word}' is now called 'peft'\n"


@pytest.mark.slow
def test_memo_and_pet_are_cache_and_peft(tmp_path: Path) -> None:
    common = ["run", "--strategy", "lae", "--increment", "5", *TINY, "--quiet"]
    common += ["--set", "epochs=1", "--set", "freeze_epochs=0", "--out", str(tmp_path / "runs")]
    earlier = ["--memo", str(tmp_path / "kept"), "--memo-gigabytes", "1", "--set", "pet=lora"]
    code, text, said = call(*common, *earlier)
    assert code == 0, text
    assert said.splitlines() == [
        "cl-adapters: option --memo is now called --cache",
        "cl-adapters: option --memo-gigabytes is now called --cache-gigabytes",
        "cl-adapters: option `pet` is now called `peft`",
    ]
    assert any((tmp_path / "kept").iterdir())
    (folder,) = find_runs([tmp_path / "runs"])
    assert RunRecord.read(folder).config["options"]["peft"] == "lora"
    today = ["--cache", str(tmp_path / "kept"), "--set", "peft=lora"]
    code, _, said = call(*common, *today)
    assert (code, said) == (0, "")
    assert find_runs([tmp_path / "runs"]) == [folder], "the same run"


@pytest.mark.parametrize("command", ["run", "sweep", "tune"])
def test_help_shows_only_todays_names(command: str) -> None:
    _, text, _ = call(command, "--help")
    assert "--cache" in text
    assert "memo" not in text
