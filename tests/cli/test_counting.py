"""How far a command is, where nobody looks at a terminal."""

import pytest

from cl_adapters.cli import counting


def test_a_line_now_and_then_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(counting.time, "monotonic", lambda: now[0])
    with counting.counted("reading") as count:
        for image in range(30):
            now[0] = float(image)
            count(1200)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"reading: {image + 1} of 1,200 images" for image in (9, 18, 27)]
    with counting.counted("reading", 5, quiet=True) as count:
        now[0] = 1000.0
        count()
    assert capsys.readouterr().err == ""
