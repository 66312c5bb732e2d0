"""The page in a real browser: no errors, nothing asked of a network, curves, sizes, accessibility."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl_adapters.records.tables import write_examples
from cl_adapters.reports.report import write_report
from tests.reports.browser import CHROMIUM, Browser, browser
from tests.reports.conftest import make_predictions, run_maker
from tests.reports.growing import write_growth
from tests.reports.retrieving import write_retrieving
from tests.reports.test_examples import frame as examples
from tests.reports.test_votes import write_votes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium, none on this machine"),
]
EVIL = '<script>document.title = "hacked"</script>'


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every section, and hostile names."""
    root = tmp_path_factory.mktemp("page")
    make_run = run_maker(root)
    for seed in (0, 1):
        make_run("simplecil", seed, decay=0.12)
        write_votes(make_run("lae", seed, decay=0.05), seed)
        write_examples(make_run("finetune", seed, decay=0.3), examples())
        make_run(EVIL, seed, folder=root / "runs" / f"..x{seed}", decay=0.2)
    make_run("joint", 0, decay=0.0)
    for number in range(7):
        make_run(f"method number {number}", 0)
    write_growth(make_run("sema", 0), ("plain", "rotation", "plain", "blur"))
    write_retrieving(make_run("mos", 0))
    make_run("lae", 7, state="interrupted", experiences_done=1, error="<b>out of memory</b>")
    (make_run("lae", 8) / "predictions.parquet").write_bytes(b"x")
    return write_report([root / "runs"], root / "report", formats=["svg"]).html


@pytest.fixture
def page(written: Path, chromium: Browser) -> Path:
    path = written
    chromium.problems.clear()
    chromium.requests.clear()
    chromium.scripts(are_on=True)
    chromium.emulate(prefers_color_scheme="light")
    chromium.resize(1440)
    return path


def test_it_opens_without_a_word_and_asks_nothing_of_a_network(
    chromium: Browser, page: Path
) -> None:
    chromium.open(page)
    assert chromium.problems == []
    assert {each.split(":")[0] for each in chromium.requests} <= {"file", "data"}
    assert [each for each in chromium.requests if each.startswith("file:")] == [page.as_uri()]
    assert chromium.run("document.title") == "digits: continual-learning report"
    assert chromium.run("document.scripts.length") == 1
    # Whatever else came into the page could not run: the policy names our script alone.
    chromium.run(
        "document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'document.title = 1'}))"
    )
    assert chromium.run("document.title") == "digits: continual-learning report"


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(
    chromium: Browser, page: Path, width: int, scheme: str
) -> None:
    chromium.resize(width)
    chromium.emulate(prefers_color_scheme=scheme)
    chromium.open(page)
    chromium.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert chromium.run("document.documentElement.scrollWidth") <= width
    # What is wider scrolls in a box of its own.
    outside = chromium.run(
        "[...document.querySelectorAll('body *')].filter((each) => !each.closest('.scroll, .card,"
        " pre') && each.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML)"
    )
    assert outside == []


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("with_scripts", [True, False])
def test_the_main_table_fits_and_has_the_rest_behind_a_switch(
    chromium: Browser, page: Path, width: int, *, with_scripts: bool
) -> None:
    table = "document.querySelector('.switch + .scroll')"
    headings = (
        f"[...{table}.querySelectorAll('thead th')].filter((each) => each.offsetWidth).length"
    )
    chromium.resize(width)
    chromium.scripts(are_on=with_scripts)
    chromium.open(page)
    chromium.scripts(are_on=True)
    assert chromium.run(headings) == 7
    assert chromium.run(f"{table}.scrollWidth <= {table}.clientWidth")
    chromium.run("document.querySelector('.switch input').click()")
    every = f"{table}.querySelectorAll('thead th').length"
    assert chromium.run(headings) == chromium.run(every) > 12


def test_what_is_cut_says_so_and_scrolls_by_keyboard(chromium: Browser, page: Path) -> None:
    chromium.resize(390)
    chromium.open(page)
    chromium.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    chromium.run("document.querySelector('.switch input').click()")
    chromium.run("new Promise((done) => setTimeout(done, 300))")
    boxes = chromium.run(
        "[...document.querySelectorAll('.scroll, .card, pre')].map((box) => ({"
        " cut: box.scrollWidth > box.clientWidth + 1, overflow: getComputedStyle(box).overflowX,"
        " says: box.classList.contains('goes-right'), focus: box.tabIndex, role: box.role,"
        " name: box.ariaLabel || box.getAttribute('aria-labelledby').split(' ')"
        "   .map((id) => document.getElementById(id).textContent).join(' ')}))"
    )
    assert sum(box["cut"] for box in boxes) > 10
    for box in boxes:
        assert box["overflow"] == "auto"
        assert box["says"] == box["cut"]
        assert box["focus"] == 0
        assert box["role"] in {"region", "img"}
        assert box["name"]
    first = "document.querySelector('.switch + .scroll')"
    chromium.run(f"{first}.scrollLeft = 1e6")
    chromium.run("new Promise((done) => setTimeout(done, 300))")
    assert chromium.run(f"{first}.className") == "scroll main goes-left"


def test_a_curve_is_switched_off_and_on(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    button = (
        "[...document.querySelectorAll('.keys button')]"
        ".find((each) => each.textContent.startsWith('lae'))"
    )
    number = int(chromium.run(f"{button}.dataset.curve"))
    parts = f"[...document.querySelectorAll('[id^=s1f0-curve-{number}-]')]"
    shown = f"{parts}.map((each) => getComputedStyle(each).display)"
    # The line, its whiskers, and at its end a thin line, a marker and its name.
    assert chromium.run(f"{parts}.length") == 5
    assert "none" not in chromium.run(shown)
    chromium.run(f"{button}.click()")
    assert chromium.run(f"{button}.ariaPressed") == "false"
    assert chromium.run(shown) == ["none"] * 5
    every = "[...document.querySelectorAll('[id^=s1f0-curve-]')]"
    assert chromium.run(f"{every}.filter((each) => each.style.display === 'none').length") == 5
    chromium.run(f"{button}.focus()")
    chromium.press(" ", 32, " ")  # by keyboard, too
    assert chromium.run(f"{button}.ariaPressed") == "true"
    assert "none" not in chromium.run(shown)
    chromium.run(f"{button}.click()")
    chromium.run("document.querySelector('.keys .all').click()")
    assert "none" not in chromium.run(shown)
    assert chromium.problems == []


def test_values_follow_the_pointer_and_the_keyboard(
    chromium: Browser, page: Path, tmp_path: Path
) -> None:
    chromium.open(page)
    read = (
        "[document.querySelector('output').textContent,"
        " document.querySelector('.keys .name').textContent,"
        " document.querySelector('.keys .value').textContent]"
    )
    at, name, value = chromium.run(read)
    assert at == "8 classes seen (experience 4: class 6, class 7)"
    label, curves = name.split(",")[0], {}
    for seed in (0, 1):
        frame = make_predictions([2, 2, 2, 2], 12, 0.0, seed + 17)
        right = frame["prediction"] == frame["target"]
        curves[seed] = 100 * right.groupby(frame["experience"]).mean()
    assert label == "joint"
    assert value == f"{curves[0].iloc[-1]:.2f}"  # one seed: no interval
    chromium.run("document.querySelector('input[type=range]').focus()")
    chromium.press("ArrowLeft", 37)
    at, _, value = chromium.run(read)
    assert (at, value) == (
        "6 classes seen (experience 3: class 4, class 5)",
        f"{curves[0].iloc[-2]:.2f}",
    )
    box = chromium.run(
        "(() => { const r = document.querySelector('.curve svg').getBoundingClientRect();"
        " return [r.left, r.top, r.width, r.height]; })()"
    )
    chromium.move(box[0] + 0.13 * box[2], box[1] + box[3] / 2)
    at, _, value = chromium.run(read)
    assert (at, value) == (
        "2 classes seen (experience 1: class 0, class 1)",
        f"{curves[0].iloc[0]:.2f}",
    )
    said = chromium.run("document.querySelector('input[type=range]').ariaValueText")
    said = said or chromium.run(
        "document.querySelector('input[type=range]').getAttribute('aria-valuetext')"
    )
    assert said.startswith("2 classes seen (experience 1: class 0, class 1). joint")


def test_without_scripts_every_figure_stands_with_its_legend(chromium: Browser, page: Path) -> None:
    chromium.scripts(are_on=False)
    chromium.open(page)
    chromium.scripts(are_on=True)
    assert chromium.run("[...document.querySelectorAll('.controls')].every((each) => each.hidden)")
    assert chromium.run("document.querySelectorAll('figure svg.drawing').length") > 20
    texts = chromium.run(
        "[...document.querySelectorAll('.curve svg text')].map((each) => each.textContent)"
    )
    assert "simplecil" in texts
    assert "joint, 1 of 2 seeds" in texts


def test_a_link_into_something_folded_unfolds_it(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    chromium.run("document.querySelector('tbody th a').click()")
    chromium.run("new Promise((done) => setTimeout(done, 200))")
    assert chromium.run("document.querySelector(location.hash).open")


def test_paper_shows_what_the_screen_folds_away(chromium: Browser, page: Path) -> None:
    chromium.resize(1032)  # A4 across, less the margins
    chromium.open(page)
    chromium.emulate(media="print", prefers_color_scheme="dark")
    assert chromium.run("getComputedStyle(document.querySelector('.controls')).display") == "none"
    heights = chromium.run(
        "[...document.querySelectorAll('details.method')].map((each) => each.offsetHeight)"
    )
    assert min(heights) > 300
    # Nothing is cut, no column is left out, and no ground is dark.
    assert chromium.run("document.documentElement.scrollWidth") <= 1032
    cut = "[...document.querySelectorAll('.scroll, .card, pre')]"
    assert chromium.run(f"{cut}.filter((box) => box.scrollWidth > box.clientWidth + 1).length") == 0
    assert chromium.run(f"{cut}.every((box) => getComputedStyle(box).maskImage === 'none')")
    shown = "[...document.querySelectorAll('.main th')].every((each) => each.offsetWidth > 0)"
    assert chromium.run(shown)
    white = chromium.run(
        "['body', '.panels .card', '.panels svg path', '.curve svg path'].map((each) =>"
        " getComputedStyle(document.querySelector(each)))"
        ".map((style) => [style.backgroundColor, style.fill])"
    )
    assert white[0][0] == white[1][0] == white[2][1] == white[3][1] == "rgb(255, 255, 255)"
    filters = "getComputedStyle(document.querySelector('.panels svg')).filter"
    assert chromium.run(filters) == "none"
    chromium.emulate(media="", prefers_color_scheme="light")
    data = chromium.paper()
    assert data.startswith(b"%PDF-")
    assert 5 < data.count(b"/Type /Page\n") < 80


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(chromium: Browser, page: Path, width: int, scheme: str) -> None:
    spec = find_spec("axe_core_python")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs axe-core, of the extra `dev`")
    script = Path(spec.submodule_search_locations[0]) / "axe.min.js"
    chromium.resize(width)
    chromium.emulate(prefers_color_scheme=scheme)
    chromium.open(page)
    chromium.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    chromium.run(script.read_text("utf-8") + "; 1")
    for where in ("document", "document.querySelector('.main')"):
        found = chromium.run(
            f"axe.run({where}, {{resultTypes: ['violations']}}).then((all) => all.violations"
            ".map((each) => [each.id, each.impact,"
            " each.nodes.slice(0, 3).map((node) => node.html.slice(0, 200))]))"
        )
        assert found == []
        chromium.run("document.querySelector('.switch input').click()")  # then all columns


def test_dark_and_light_differ_and_drawings_take_part(
    chromium: Browser, page: Path, tmp_path: Path
) -> None:
    brightness = {}
    for scheme in ("light", "dark"):
        chromium.emulate(prefers_color_scheme=scheme)
        chromium.open(page)
        chromium.picture(tmp_path / f"{scheme}.png", is_whole=False)
        pixels = np.asarray(Image.open(tmp_path / f"{scheme}.png").convert("L"), np.float64)
        brightness[scheme] = pixels.mean()
        card = chromium.run("getComputedStyle(document.querySelector('.curve .card')).background")
        assert ("255, 255, 255" in card) == (scheme == "light")
        ink = chromium.run("getComputedStyle(document.querySelector('.curve svg text')).fill")
        assert ink == ("rgb(28, 30, 33)" if scheme == "light" else "rgb(231, 233, 236)")
    assert brightness["light"] > 200
    assert brightness["dark"] < 60
