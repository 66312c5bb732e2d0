"""What a user of the pretraining may give."""

import sys
from pathlib import Path

import pytest

from cl_adapters.benchmarks.maintenance import pretrain as command
from cl_adapters.benchmarks.maintenance.pretrain import (
    PretrainConfig,
    pretrain,
)
from cl_adapters.errors import InputError
from tests.benchmarks.maintenance.pretraining.workshop import Workshop, write_data


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, teacher_file: Path) -> Workshop:
    folder = tmp_path_factory.mktemp("pretrain")
    write_data(folder / "data.parquet")
    return Workshop(folder, teacher_file)


# What follows is what a user may get wrong.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("steps", "decay", "warmup", "photos", "drawn", "every")),
        *((name, -3) for name in ("num_glyphs", "num_emblems", "threads", "seed")),
        *((name, -0.1) for name in ("rate", "matrix_rate", "weight_decay", "ema")),
        ("rate", float("nan")),
        ("matrix_rate", float("inf")),
        ("ema", 1.0),
        ("seed", 2**32),
    ],
)
def test_numbers_out_of_range_are_refused(workshop: Workshop, name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"^`{name}` must be at least .*, got {value}$"):
        workshop.config("bad", **{name: value})


@pytest.mark.parametrize("name", ["data", "teacher"])
def test_inputs_that_are_no_files_are_refused(
    workshop: Workshop, tmp_path: Path, name: str
) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(InputError, match=f"^`{name}` must be an existing file, got '{path}'$"):
            pretrain(workshop.config("bad", **{name: path}))
    assert not (workshop.folder / "bad").exists()


def run_command(monkeypatch: pytest.MonkeyPatch, config: PretrainConfig, *more: str) -> None:
    given = [f"--{name.replace('_', '-')}={value}" for name, value in vars(config).items()]
    monkeypatch.setattr(sys, "argv", ["pretrain", *given, *more])
    command._main()


def test_the_command_takes_every_setting(
    monkeypatch: pytest.MonkeyPatch, workshop: Workshop
) -> None:
    taken: list[PretrainConfig] = []
    monkeypatch.setattr(command, "pretrain", taken.append)
    config = workshop.config("command", rate=0.25, seed=9, ema=0.5)
    run_command(monkeypatch, config)
    assert taken == [config]


def test_the_command_has_the_defaults_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[PretrainConfig] = []
    monkeypatch.setattr(command, "pretrain", taken.append)
    monkeypatch.setattr(sys, "argv", ["pretrain", "--data=a", "--teacher=b", "--out=c"])
    command._main()
    assert taken == [PretrainConfig(data=Path("a"), teacher=Path("b"), out=Path("c"))]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--steps=0", "`steps` must be at least 1 and less than inf, got 0"),
        ("--data=nowhere", "`data` must be an existing file, got 'nowhere'"),
        (f"--data={__file__}", "must be a readable parquet file"),
    ],
)
def test_bad_arguments_end_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workshop: Workshop,
    option: str,
    sentence: str,
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(monkeypatch, workshop.config("bad"), option)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
