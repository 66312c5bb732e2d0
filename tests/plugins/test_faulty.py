"""What goes wrong in a plugin is one sentence with its file and line, told once."""

import re
from pathlib import Path
from textwrap import dedent, indent

import numpy as np
import pytest
from typer.testing import CliRunner

from cl_adapters.benchmarks.conformance import check_plugin
from cl_adapters.benchmarks.data.sources import array_source
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.cli import app
from cl_adapters.errors import InputError
from cl_adapters.records.run_record import RunRecord
from cl_adapters.strategies import find_strategy

HEAD = """\
import torch
from cl_adapters.strategies.finetune import Finetune
from cl_adapters.strategies.simplecil import SimpleCIL


class Mine(Finetune):
    \"\"\"Mine.\"\"\"

"""  # eight lines


def written(folder: Path, body: str, head: str = HEAD) -> str:
    (folder / "mine.py").write_text(head + indent(dedent(body), "    "))
    return f"{folder / 'mine.py'}:Mine"


def outcomes(name: str, *checks: str) -> dict[str, list[str]]:
    found = check_plugin("strategy", name, checks=checks or None)
    return {each.name: list(each.sentences) for each in found if each.sentences}


LOSS = "def batch_loss(self, logits, targets):\n"
FAULTS = {
    "constructor": (
        "def __init__(self, **given):\n    raise KeyError('left out')",
        r"got KeyError: 'left out' \(.*mine.py, line 10\)",
    ),
    "training": (LOSS + "    return logits.nonsense()", r"AttributeError.* \(.*mine.py, line 10\)"),
    "no return": (LOSS + "    logits.sum()", r"Mine.batch_loss \(.*mine.py, line 9\) must return a loss, a scalar, got nothing"),
    "a number": (LOSS + "    return 1.0", r"must return a loss, a scalar, got a float"),
    "no gradient": (LOSS + "    return torch.tensor(1.0)", r"batch_loss \(.*mine.py, line 9\) must return a loss, a scalar, got one that does not depend on what is trained"),
    "no model": (
        "@classmethod\ndef build_model(cls, backbone, config, seed):\n    pass",
        r"Mine.build_model \(.*mine.py, line 9\) must return a model, got nothing",
    ),
    "no phases": ("def phases(self):\n    pass", r"Mine.phases \(.*mine.py, line 9\) must return phases, or yield them, got nothing"),
    "a number as phase": ("def phases(self):\n    yield 3", r"Mine.phases \(.*mine.py, line 9\) must return phases alone, got an int"),
    "no optimiser": (
        "def build_optimizer(self, parameters):\n    pass",
        r"Mine.build_optimizer \(.*mine.py, line 9\) must return an optimiser, got nothing",
    ),
    "a row": (LOSS + "    return logits[:, 0]", r"must return a loss, a scalar, got shape \(8,\)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_check_stops_at_the_first_cause_and_says_where_it_stands(
    fault: str, tmp_path: Path
) -> None:
    body, message = FAULTS[fault]
    found = outcomes(written(tmp_path, body), "answers", "backbone", "seeds", "small")
    assert list(found) == ["answers"]
    (sentence,) = found["answers"]
    assert "\n" not in sentence
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(sentence)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("pass", "got nothing"),
        ("return torch.zeros(3, 4)", r"got shape \(3, 4\)"),
        ("return torch.zeros(len(images))", r"got shape \(8,\)"),
        ("return [1]", "got a list"),
    ],
)
def test_what_is_no_logits_is_refused_where_it_was_made(
    tmp_path: Path, line: str, found: str
) -> None:
    body = f"""
    @classmethod
    def build_model(cls, backbone, config, seed):
        model = super().build_model(backbone, config, seed)
        class Odd(type(model)):
            def forward(self, images):
                {line}
        model.__class__ = Odd
        return model
    """
    (sentence,) = outcomes(written(tmp_path, body), "answers")["answers"]
    place = r"Odd.forward \(.*mine.py, line 14\) must return logits of shape \(8, C\), "
    with pytest.raises(AssertionError, match=place + found):
        raise AssertionError(sentence)


def test_columns_by_position_are_refused_where_they_were_made(tmp_path: Path) -> None:
    """Labels 3 and 0 come first: a head that numbers them 0 and 1 has no column for label 3."""
    body = """
    @classmethod
    def build_model(cls, backbone, config, seed):
        model = super().build_model(backbone, config, seed)
        class Odd(type(model)):
            def forward(self, images):
                return super().forward(images)[:, :2]
        model.__class__ = Odd
        return model
    """
    found = outcomes(written(tmp_path, body))
    (sentence,) = found["answers"]
    assert list(found) == ["answers"], "and nothing after it"
    rule = "with a column for each label, 0 to 3, got 2 columns"
    with pytest.raises(AssertionError, match=rf"Odd.forward \(.*mine.py, line 14\).* {rule}"):
        raise AssertionError(sentence)


def test_generators_without_names_are_refused_where_they_were_made(tmp_path: Path) -> None:
    body = "def generators(self):\n    return [1]"
    (sentence,) = outcomes(written(tmp_path, body), "resumes_inside")["resumes_inside"]
    with pytest.raises(AssertionError, match=r"mine.py, line 9\) must return generators by name"):
        raise AssertionError(sentence)


def test_a_constructor_that_takes_something_else_is_refused_at_once(tmp_path: Path) -> None:
    body = "def __init__(self, backbone):\n    pass"
    with pytest.raises(InputError, match=r"mine.py:Mine' must be a function of backbone, config"):
        find_strategy(written(tmp_path, body))


def test_a_backbone_that_is_trained_is_told_in_one_line_a_check(tmp_path: Path) -> None:
    body = "def begin_experience(self):\n    self.backbone.requires_grad_(True)"
    found = outcomes(written(tmp_path, body), "declares", "backbone")
    assert {name: len(sentences) for name, sentences in found.items()}["declares"] == 1
    assert len(found["backbone"]) <= 2


def test_a_draw_from_the_global_source_is_not_told_as_reading_ahead(tmp_path: Path) -> None:
    body = "def before_step(self):\n    for each in self.model.heads.parameters():\n        each.grad += torch.randn_like(each)"
    assert list(outcomes(written(tmp_path, body), "data_to_come", "seeds")) == ["seeds"]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("def __getattr__(name):\n    raise ValueError(name)\n", r"importable, got ValueError: Mine \(.*mine.py, line 2\)"),
        ("def __getattr__(name):\n    raise AttributeError(name)\n", "unknown strategy"),
        ("def __getattr__(name):\n    return 3\n", "derived from AdapterStrategy"),
    ],
)  # fmt: skip
def test_a_module_that_answers_by_code_is_asked_with_care(
    tmp_path: Path, head: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        find_strategy(written(tmp_path, "", head))


@pytest.mark.parametrize("fault", ["constructor", "training"])
def test_a_run_ends_in_a_sentence_and_keeps_the_traceback(fault: str, tmp_path: Path) -> None:
    body, message = FAULTS[fault]
    name = written(tmp_path, body)
    options = ["--backbone", "test_vit", "--weights", "random", "--image-size", "32"]
    out = tmp_path / "runs"
    command = ["run", "--strategy", name, "--stream", "digits", "--out", str(out), *options]
    result = CliRunner().invoke(app, [*command, "--quiet"])
    assert result.exit_code == 1
    (line,) = [each for each in result.output.splitlines() if "plugin" in each]
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(line)
    if fault == "training":
        (record,) = out.rglob("run.json")
        assert RunRecord.read(record.parent).state == "failed"
        assert "Traceback" in (record.parent / "error.log").read_text()


OPTIMIZER = (
    "def build_optimizer(self, parameters):\n    made = super().build_optimizer(parameters)\n"
)
ENDS = {
    "sys.exit(0)": (LOSS + "    raise SystemExit(0)", r"got SystemExit: 0 \(.*mine.py, line 10\)"),
    "no word": (
        LOSS + "    class Odd(Exception):\n        __str__ = None\n    raise Odd",
        r"got Odd \(.*mine.py, line 12\)",
    ),
    "gave what fails later": (
        OPTIMIZER + "    made.step = None\n    return made",
        r"got TypeError: 'NoneType' .* \(.*, line \d+, with what mine.py gave\)",
    ),
}


@pytest.mark.parametrize("fault", ENDS)
def test_no_plugin_ends_a_run_as_if_it_were_good_or_in_a_traceback(
    fault: str, tmp_path: Path
) -> None:
    body, message = ENDS[fault]
    options = ["--backbone", "test_vit", "--weights", "random", "--image-size", "32", "--quiet"]
    command = ["run", "--strategy", written(tmp_path, body), "--out", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, [*command, *options])
    assert result.exit_code == 1, result.output
    assert re.search(message, result.output), result.output
    assert "Traceback" not in result.output
    (record,) = tmp_path.rglob("run.json")
    assert RunRecord.read(record.parent).state == "failed"
    assert "Traceback" in (record.parent / "error.log").read_text()


def test_a_fault_of_our_own_keeps_its_traceback(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("ours")

    grey = np.zeros((8, 8, 8)), np.arange(8) % 2
    recipe = {"strategy": "simplecil", "increment": 1, "backbone": "test_vit", "weights": "random"}
    prepared = prepare(
        RunConfig.parse({**recipe, "image_size": 32}), source=array_source("grey", grey, grey)
    )
    monkeypatch.setattr(type(prepared.strategy), "accumulate", fail)
    with pytest.raises(ZeroDivisionError):
        runner.run(prepared, tmp_path)
    (folder,) = (path.parent for path in tmp_path.rglob("run.json"))
    assert (RunRecord.read(folder).state, RunRecord.read(folder).error) == (
        "failed",
        "ZeroDivisionError: ours",
    )
