"""Commands in this process, judged by how they end."""

import re
from collections.abc import Sequence
from typing import Any

from typer.testing import CliRunner

from cl_adapters.cli import app

__all__ = ["ended_well", "invoked"]


def invoked(arguments: Sequence[str]) -> Any:
    """Calls a command; fails unless it ends well or in one sentence."""
    result = CliRunner().invoke(app, list(arguments))
    ended_well(result, arguments)
    return result


def ended_well(result: Any, told: object) -> None:
    """Fails unless a command ended with 0, or in one sentence of ours or of typer's with 1 or 2."""
    text = f"{told}\n{result.output}\n{result.exception!r}"
    assert isinstance(result.exception, SystemExit | None), text
    assert result.exit_code in (0, 1, 2), text
    assert "Traceback (most recent call last)" not in result.output, text
    assert "\x1b" not in result.stderr, text
    if result.exit_code == 2:
        said = re.findall(r"^(?:cl-adapters: .+|Error: .+)$", result.stderr, flags=re.MULTILINE)
        assert len(said) == 1, text
    if result.exit_code == 1:
        assert result.output.strip(), text
