"""The picture of the rooms is what the import contracts say now."""

import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = runpy.run_path(str(ROOT / "docs" / "rooms.py"))
SVG = "{http://www.w3.org/2000/svg}"


def words(picture: str) -> list[str]:
    found = ElementTree.fromstring(picture).iter(f"{SVG}text")
    return [each.text or "" for each in found]


def test_the_picture_is_drawn_from_today_s_contracts() -> None:
    stored = (ROOT / "docs" / "figures" / "rooms.svg").read_text("utf-8")
    assert stored == ROOMS["draw"](), "run `python docs/rooms.py`"


def project(folder: Path, contracts: str) -> Path:
    (folder / "pyproject.toml").write_text(
        f'[tool.importlinter]\nroot_package = "house"\n{contracts}', "utf-8"
    )
    (folder / "house" / "cellar").mkdir(parents=True)
    (folder / "house" / "cellar" / "__init__.py").write_text('"""Keeps wine. And more."""\n')
    (folder / "house" / "attic.py").write_text('"""Under the roof,\nwhere `it` is warm."""\n')
    return folder


def test_floors_rooms_and_their_first_sentences_stand_from_top_to_bottom(tmp_path: Path) -> None:
    layers = (
        '[[tool.importlinter.contracts]]\nname = "down"\ntype = "layers"\n'
        'containers = ["house"]\nlayers = ["attic | (loft)", "cellar"]\n'
    )
    found = words(ROOMS["draw"](project(tmp_path, layers)))
    chosen = [each for each in found if each in {"house", "attic", "loft", "cellar", "Keeps wine."}]
    assert chosen == ["house", "attic", "loft", "cellar", "Keeps wine."]
    assert "Under the roof, where it" in " ".join(found)
    assert not any("And more" in each for each in found)


def test_what_is_forbidden_is_said(tmp_path: Path) -> None:
    rule = (
        '[[tool.importlinter.contracts]]\nname = "No wine upstairs"\ntype = "forbidden"\n'
        'source_modules = ["house.attic"]\nforbidden_modules = ["wine"]\n'
    )
    found = words(ROOMS["draw"](project(tmp_path, rule)))
    assert found[-2:] == ["No wine upstairs", "attic: never wine."]


@pytest.mark.parametrize("name", ["rooms.py", "house.py", "calls.py"])
def test_scripts_are_no_pages_of_the_site(name: str) -> None:
    listed = (ROOT / "mkdocs.yml").read_text("utf-8").split("exclude_docs: |")[1].splitlines()
    assert f"  {name}" in listed


def test_every_file_that_the_page_names_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    known = [f"/{path.relative_to(ROOT).as_posix()}" for path in ROOT.rglob("*.py")]
    named = set(re.findall(r"`([\w/.]+\.py)`", text)) | set(re.findall(r"docs/\w+\.py", text))
    assert len(named) > 30
    assert [name for name in named if not any(path.endswith(f"/{name}") for path in known)] == []
    folders = re.findall(r"`([\w/]+/)`", text)
    places = ("", "cl_adapters/", "benchmarks/")
    assert [each for each in folders if not any((ROOT / at / each).is_dir() for at in places)] == []


PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{each}" for each in (
    path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")
))]  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_paths_and_modules_of_a_page_exist(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    rooms = "cl_adapters|strategies|benchmarks|reports|tests|examples|docs"
    paths = set(re.findall(rf"(?<![\w/.])(?:{rooms})(?:/[\w.-]+)+(?![\w<])", text))
    assert [each for each in paths if not (ROOT / each.rstrip(".")).exists()] == []
    modules = re.findall(r"python -m (cl_adapters[\w.]*)", text)
    places = [ROOT.joinpath(*name.split(".")) for name in modules]
    missing = [at for at in places if not (at.with_suffix(".py").is_file() or at.is_dir())]
    assert missing == []
