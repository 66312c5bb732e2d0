"""The site in a real browser: nothing cut off on a phone, code that scrolls, light and dark."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.reports.browser import CHROMIUM, Browser, browser

ROOT = Path(__file__).parent.parent
PAGES = ["index", "methods/index", "methods/sema", "gallery", "faq", "glossary", "release"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium, none on this machine"),
    pytest.mark.skipif(find_spec("material") is None, reason="needs the extra `docs`"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_cut_off_on_a_phone(page: str, site: Path, chromium: Browser) -> None:
    chromium.resize(390)
    chromium.open(site / f"{page}.html")
    assert chromium.run("document.documentElement.scrollWidth") == 390
    wide = chromium.run(
        "[...document.querySelectorAll('pre > code')].filter(e => e.scrollWidth > e.clientWidth)"
        ".map(e => [getComputedStyle(e).overflowX, getComputedStyle(e).backgroundImage])"
    )
    # Wide code scrolls, and a shadow says so, as bars hide on a phone.
    assert all(how == "auto" and "linear-gradient" in ground for how, ground in wide)
    if page in {"gallery", "methods/sema"}:
        assert wide
    assert chromium.run(
        "[...document.images].every(e => e.naturalWidth && e.getBoundingClientRect().right <= 390)"
    )


@pytest.mark.parametrize(("asked", "face"), [("light", "default"), ("dark", "slate")])
def test_it_follows_the_system_and_can_be_switched(
    asked: str, face: str, site: Path, chromium: Browser
) -> None:
    chromium.resize(1440)
    chromium.emulate(prefers_color_scheme=asked)
    chromium.open(site / "index.html")
    assert chromium.run("document.body.getAttribute('data-md-color-scheme')") == face
    assert (
        chromium.run("document.querySelectorAll('[data-md-component=palette] input').length") == 3
    )
    assert all(each.startswith(("file:", "data:", "blob:")) for each in chromium.requests)
