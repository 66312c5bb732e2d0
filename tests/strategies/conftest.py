"""What several tests of strategies share."""

import pytest

from cl_adapters.shift import DETECTORS
from tests.strategies.trained_sema import Scripted


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    monkeypatch.setitem(DETECTORS.places, "scripted", Scripted)
    Scripted.asked, Scripted.made, Scripted.fires = [], 0, lambda _: False
    return Scripted
