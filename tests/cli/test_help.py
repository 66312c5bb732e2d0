"""Help answers before anything heavy could load, and says what the recipe says of each option."""

import re
import resource
import subprocess
import sys
from importlib.metadata import version

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from cl_adapters.benchmarks.running.recipe_groups import Group
from cl_adapters.benchmarks.running.recipe_keys import recipe_keys
from cl_adapters.cli import COMMANDS, app
from cl_adapters.cli.recipe_options import COMMAND_KEYS

HEAVY = ("torch", "timm", "pandas", "avalanche", "numpy", "matplotlib")


def seconds_of(arguments: list[str]) -> tuple[float, str]:
    """Returns the least processor time of three calls, and what was printed.

    The program's own processor time: other tests run beside it, and would count in the wall's.
    """
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run(
            [sys.executable, "-m", "cl_adapters", *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds), result.stdout


# To build a command, typer itself imports pydantic: most of the second figure.
@pytest.mark.parametrize(("command", "most"), [([], 0.3), (["run"], 1.0), (["report"], 1.0)])
def test_help_answers_at_once(command: list[str], most: float) -> None:
    seconds, text = seconds_of([*command, "--help"])
    assert "Usage" in text
    assert seconds < most


def test_help_of_a_command_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom cl_adapters.cli import app\n"
        f"for command in {list(COMMANDS)}:\n"
        "    try: app([command, '--help'])\n"
        "    except SystemExit:\n"
        f"        loaded = [name for name in {HEAVY} if name in sys.modules]\n"
        "        print('loaded', command, *loaded)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    told = [line for line in result.stdout.splitlines() if line.startswith("loaded ")]
    assert told == [f"loaded {command}" for command in COMMANDS]


def help_of(*command: str) -> str:
    result = CliRunner().invoke(app, [*command, "--help"], terminal_width=1000)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_the_help_lists_every_command_with_its_sentence() -> None:
    text = help_of()
    for name, command in COMMANDS.items():
        assert f"{name} {command.help}" in text
    assert "inspect Reports classes, sizes, duplicates" in help_of("data")


@pytest.mark.parametrize("name", COMMAND_KEYS)
def test_run_has_an_option_for_every_key_and_says_what_the_recipe_says(name: str) -> None:
    key, flag = recipe_keys()[name], f"--{name.replace('_', '-')}"
    text = help_of("run")
    assert f"{flag} " in text or f"{flag}/" in text
    assert key.help() in text
    assert all(choice in text for choice in key.choices)


def headings_of(text: str) -> dict[str, list[str]]:
    """Returns the headings of a help, in order, each with the flags that stand below it."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if re.fullmatch(r"\S.*:", line):
            found[line.rstrip(":")] = []
        elif re.match(r"  --", line):
            found[list(found)[-1]].append(line.split()[0])
    return found


@pytest.mark.parametrize("command", ["run", "continue", "sweep", "tune"])
def test_every_option_stands_once_under_the_heading_of_its_group(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], terminal_width=1000)
    found = headings_of(result.output)
    parameters = get_command(app).commands[command].params
    flags = [each.opts[0] for each in parameters if each.opts[0][0] == "-" and not each.hidden]
    shown = [each for under in found.values() for each in under]
    assert sorted(shown) == sorted([*flags, "--help"]), "each once"
    groups = [heading for heading in found if heading not in {"Arguments", "Options", "Examples"}]
    assert set(groups) <= set(Group)
    assert groups == sorted(groups, key=list(Group).index)
    assert found["Options"] == ["--help"], "everything else has a group"
    for name, key in recipe_keys().items():
        flag = f"--{name.replace('_', '-')}"
        if flag in flags and name != "threads":  # of `sweep` and `tune`, what a run gets
            assert flag in found[key.group]


def test_the_headings_of_run_are_all_there_are() -> None:
    result = CliRunner().invoke(app, ["run", "--help"], terminal_width=1000)
    assert list(headings_of(result.output)) == [*Group, "Options"]


def test_a_command_without_groups_has_plain_options() -> None:
    result = CliRunner().invoke(app, ["report", "--help"], terminal_width=1000)
    assert list(headings_of(result.output)) == ["Arguments", "Options", "Examples"]


def test_only_what_has_another_form_is_no_option_of_run() -> None:
    other_forms = {"options", "plugins", "continued", "datasets"}
    assert set(recipe_keys()) - set(COMMAND_KEYS) == other_forms


def test_a_near_command_is_suggested() -> None:
    result = CliRunner().invoke(app, ["swep"])
    assert result.exit_code == 2
    assert "Did you mean 'sweep'" in result.output
    assert isinstance(app, typer.Typer)


def test_the_version_is_that_of_the_package() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"{version('cl-adapters')}\n")
