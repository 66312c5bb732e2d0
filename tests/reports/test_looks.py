"""Colours and markers of methods, seen as colour-blind readers see them and on both pages.

The oracles stand here: contrast as WCAG 2 defines it, CIELAB, and what readers without one kind of
cone see, by the matrices of Machado, Oliveira and Fernandes, 2009, at full strength.
"""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cl_adapters.reports import page
from cl_adapters.reports.groups import group_runs
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.looks import COLOURS, MARKERS, CurveStyle, Method, method_looks
from cl_adapters.strategies import STRATEGIES
from tests.reports.conftest import MakeRun

PLANNED = [
    "acmap",
    "aper",
    "cl_lora",
    "coda_prompt",
    "cofima",
    "dualprompt",
    "ease",
    "fecam",
    "finetune",
    "hide_prompt",
    "inflora",
    "joint",
    "l2p",
    "lae",
    "loranpac",
    "mos",
    "ranpac",
    "sd_lora",
    "sema",
    "simplecil",
    "slca",
    "ssiat",
    "tuna",
]
SEEN = {
    "all cones": np.eye(3),
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
FAR = 20  # in CIELAB, where 2.3 is just noticed


def linear(colour: str) -> NDArray[np.float64]:
    part = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    light, dark = sorted(
        (float(linear(each) @ [0.2126, 0.7152, 0.0722]) for each in (one, other)), reverse=True
    )
    return (light + 0.05) / (dark + 0.05)


def lab(light: NDArray[np.float64]) -> NDArray[np.float64]:
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    share = np.array(to_xyz) @ np.clip(light, 0, 1) / [0.9505, 1.0, 1.0890]
    x, y, z = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one: str, other: str) -> float:
    """How far two colours are apart for whoever sees the least of it."""
    ends = [[lab(np.array(each) @ linear(c)) for c in (one, other)] for each in SEEN.values()]
    return min(float(np.linalg.norm(a - b)) for a, b in ends)


def told_apart(one: CurveStyle, other: CurveStyle) -> bool:
    return one.marker != other.marker or distance(one.colour, other.colour) >= FAR


def test_the_oracles_know_what_is_known() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert lab(linear("#ffffff")) == pytest.approx([100, 0, 0], abs=0.05)
    assert lab(linear("#ff0000")) == pytest.approx([53.2, 80.1, 67.2], abs=0.2)
    assert distance("#B00000", "#3F6F00") < FAR < distance("#0000ff", "#ffff00")


def test_all_methods_are_told_apart_also_without_red_or_green() -> None:
    looks = method_looks(Method(name) for name in PLANNED)
    assert len(set(looks.values())) == len(PLANNED) >= 12
    for one, other in combinations(looks.values(), 2):
        assert told_apart(one, other), (one, other)
    assert {style.line for style in looks.values()} == {"-"}


def test_every_method_that_comes_with_the_package_has_a_place_of_its_own() -> None:
    assert set(STRATEGIES) <= set(PLANNED)


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_stand_out_from_both_pages(colour: str) -> None:
    style = Path(page.__file__).with_name("report.css").read_text("utf-8")
    roots = re.findall(r":root \{([^}]*)\}", style)
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", text)) for text in roots[:2])
    assert contrast(colour, "#ffffff") >= 3
    for tones in (light, dark):
        shown = tones["ink"] if colour == "#000000" else colour  # the page turns it round
        for ground in ("page", "card", "head"):
            assert contrast(shown, tones[ground]) >= 3, ground


@given(st.sets(st.sampled_from(PLANNED), min_size=1), st.sets(st.text(max_size=9), max_size=20))
def test_a_method_looks_the_same_beside_any_others(names: set[str], foreign: set[str]) -> None:
    alone = {name: method_looks([Method(name)])[Method(name)] for name in names}
    together = method_looks(Method(name) for name in names | foreign)
    assert {name: together[Method(name)] for name in names} == alone
    assert len(set(together.values())) == len(names | foreign)


def test_a_name_from_elsewhere_keeps_its_look_and_collides_with_no_other() -> None:
    foreign = [f"plugin {number}" for number in range(20)]
    looks = method_looks(Method(name) for name in [*PLANNED, *foreign])
    for one, other in combinations(looks.values(), 2):
        assert told_apart(one, other), (one, other)
    alone = [method_looks([Method(name)])[Method(name)] for name in foreign]
    # Most of twenty keep it even among themselves; those that meet one give way.
    assert sum(looks[Method(name)] == look for name, look in zip(foreign, alone, strict=True)) > 8
    some = method_looks(Method(name) for name in ("mos", "plugin 3", "sema"))
    assert some[Method("plugin 3")] == alone[3]


def test_variants_share_the_colour_and_differ_in_line_and_marker() -> None:
    methods = [Method("lae", f"lae (rank={number})") for number in range(10, 22)]
    looks = [method_looks([*methods, Method("mos", "mos")])[each] for each in methods]
    assert {look.colour for look in looks} == {method_looks([Method("lae")])[Method("lae")].colour}
    assert len({(look.marker, look.line) for look in looks}) == 12
    assert len({(look.marker, look.fill) for look in looks}) == 12  # where no line is drawn
    assert {look.marker for look in looks[:6]} == {"o"}


def test_more_names_than_places_are_still_unlike() -> None:
    looks = method_looks(Method(f"m{number}", f"v{k}") for number in range(150) for k in range(3))
    assert len(set(looks.values())) == 450


def test_the_page_draws_every_marker() -> None:
    for marker in MARKERS:
        for fill in ("full", "none", "left", "top"):
            look = {"label": "a", "look": CurveStyle("#000000", marker, "-", fill), "dash": ""}
            mark = page.swatch(look)["mark"]
            assert mark.count("<path") == 1 + (fill in ("left", "top"))
            assert "var(--ink)" in mark


def test_a_method_looks_the_same_in_every_group_of_a_report(
    make_run: MakeRun, tmp_path: Path
) -> None:

    make_run("plug", stream="one", options={"rank": 4})
    make_run("plug", stream="one", options={"rank": 8})
    make_run("plug", stream="two", options={"rank": 8})
    make_run("mos", stream="two")
    one, two = group_runs(load_runs([tmp_path / "runs"]).finished)
    assert one.looks["plug (rank=4)"].colour == two.looks["plug"].colour
    assert one.looks["plug (rank=4)"] != one.looks["plug (rank=8)"]
    assert len({*one.looks.values(), *two.looks.values()}) == 4
