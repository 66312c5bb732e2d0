"""One folder of tiny runs for all tests of a process."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny-runs")
