"""Pictures on the page: shown with both predictions, capped, and harmless when damaged."""

import io
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import write_examples
from cl_adapters.reports.examples import MOST_EXAMPLES
from cl_adapters.reports.report import write_report
from tests.reports.conftest import MakeRun


def png(side: int = 16) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def frame(count: int = 2, **changes: object) -> pd.DataFrame:
    row = {
        "sample": 3, "target": 1, "target_experience": 0, "right_experience": 0,
        "right_confidence": 0.9, "prediction": 6, "confidence": 0.6, "image": png(), **changes,
    }  # fmt: skip
    return pd.DataFrame([row | {"sample": number} for number in range(count)])


def test_both_predictions_stand_by_each_picture(make_run: MakeRun, tmp_path: Path) -> None:
    write_examples(make_run("lae", 1), frame())
    make_run("lae", 0)
    text = write_report([tmp_path / "runs"], tmp_path / "out", formats=["svg"]).html.read_text()
    assert text.count('<img src="data:image/png;base64,') == 2
    assert 'alt="Test image 0 of class class 1"' in text
    right = "right after experience 1: class 0, class 1 (90 %)"
    assert f"{right}, at the end taken for <strong>class 6</strong>" in text
    assert "fell most, seed 1" in text


def test_pictures_are_capped(make_run: MakeRun, tmp_path: Path) -> None:
    write_examples(make_run("lae"), frame(3 * MOST_EXAMPLES))
    text = write_report([tmp_path / "runs"], tmp_path / "out", formats=["svg"]).html.read_text()
    assert text.count("<img ") == MOST_EXAMPLES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": b"<svg onload=alert(1)>"}, "image must hold PNG files"),
        ({"image": b"\x89PNG\r\n\x1a\n" + b"x" * 50_000}, "image must hold PNG files"),
        ({"target": 99}, "target must lie in"),
        ({"right_experience": -1}, "right_experience must lie in"),
    ],
)
def test_damaged_pictures_are_named_and_the_run_skipped(
    make_run: MakeRun, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    make_run("lae", 1)
    write_examples(make_run("lae", 0), frame(**changes))
    summary = write_report([tmp_path / "runs"], tmp_path / "out", formats=["svg"])
    assert summary.num_finished == 1
    assert any(message in note for note in summary.notes)
    assert "<img " not in summary.html.read_text()


def test_hostile_class_names_stay_text(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("lae")
    record = RunRecord.read(folder)
    record.classes[1] = '"><script>alert(1)</script>'
    record.write(folder)
    write_examples(folder, frame())
    page = write_report([tmp_path / "runs"], tmp_path / "out", formats=["svg"]).html.read_text()
    assert "<script>alert" not in page
