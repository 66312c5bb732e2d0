"""Files of weights of chance: the network has exactly what is in them, or one sentence says why not."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cl_adapters.benchmarks.doctor import Finding, examine_weights
from cl_adapters.errors import InputError
from cl_adapters.vit.pretrained import load_backbone
from tests.fuzz import weights_of_chance as chance
from tests.fuzz.fuzzing import fuzz

Record = Callable[[str, object], None]
QUICK, LONG = 6, 150


def sentence_of(act: Callable[[], Any]) -> tuple[Any, str]:
    """Returns what came of it, or the one sentence that refuses it."""
    try:
        return act(), ""
    except InputError as error:
        said = str(error)
    assert said.strip()
    assert "\n" not in said
    assert "\x1b" not in said
    return None, said


def try_file(given_file: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = chance.written(Path(folder), given_file)
        if path is None:
            return
        loaded, refused = sentence_of(
            lambda: load_backbone("test_vit", weights=path, image_size=32)
        )
        findings, unread = sentence_of(lambda: examine_weights(path))
    if loaded is not None:
        assert not unread
        assert is_good(findings), findings
        check_numbers(loaded.model.vit.state_dict(), given_file)
    elif findings is not None and is_good(findings):
        # The doctor knows the network, but not which one a run asks for.
        assert "must fit the backbone" in refused, (refused, findings)


def is_good(findings: list[Finding]) -> bool:
    return all(each.advice is None for each in findings)


def check_numbers(state: dict[str, torch.Tensor], given_file: dict[str, Any]) -> None:
    """Every number is finite, and that of the file where nobody has damaged its bytes."""
    assert all(bool(torch.isfinite(each).all()) for each in state.values())
    if given_file["bytes"] != "as it is":
        return
    for name, value in chance.STATE.items():
        change = given_file["changes"].get(name)
        expected = value if change is None else chance.changed(name, change).float()
        assert torch.equal(state[name].reshape(-1), expected.reshape(-1)), (name, change)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every architecture that the doctor compares takes most of a second to make."""
    monkeypatch.setattr("cl_adapters.vit.weight_report._TRIED", 0)


def test_weights_are_taken_as_they_are_or_refused(record_property: Record) -> None:
    fuzz(try_file, QUICK, chance.files)
    record_property("reliability: odd files of weights", QUICK)


@pytest.mark.slow
def test_many_weights_are_taken_as_they_are_or_refused(record_property: Record) -> None:
    fuzz(try_file, LONG, chance.files)
    record_property("reliability: odd files of weights", LONG)
