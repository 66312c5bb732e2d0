"""The measurement of what checks cost: it reads a record that is sound, and really leaves out."""

from pathlib import Path

import pytest

from cl_adapters.benchmarks.maintenance import check_costs
from cl_adapters.benchmarks.maintenance.check_costs import _without_checks, costs, write_record
from cl_adapters.errors import InputError
from cl_adapters.records.integrity import check_files
from cl_adapters.records.tables import read_predictions
from cl_adapters.reports.load import load_runs


def test_the_record_that_is_read_is_sound_and_of_the_size_that_is_said(tmp_path: Path) -> None:
    write_record(tmp_path / "run", images=20)
    check_files(tmp_path / "run")
    assert len(read_predictions(tmp_path / "run")) == 20 * 55
    (run,) = load_runs([tmp_path / "run"]).finished
    assert run.record.experiences_done == 10


def test_without_checks_damage_is_read_and_with_them_it_is_not(tmp_path: Path) -> None:
    write_record(tmp_path / "run", images=20)
    other = tmp_path / "other"
    write_record(other, images=21)
    (other / "predictions.parquet").rename(tmp_path / "run" / "predictions.parquet")
    with _without_checks():
        assert len(read_predictions(tmp_path / "run")) == 21 * 55
    with pytest.raises(InputError, match="must match its digest"):
        read_predictions(tmp_path / "run")


def test_every_kind_of_file_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_costs.torch, "set_num_threads", lambda _: None)
    found = list(costs("test_vit.r160_in1k", images=20, pairs=6))
    assert len(found) == 6
    assert all(0.1 < each.ratio < 10 and each.bare > 0 for each in found)
