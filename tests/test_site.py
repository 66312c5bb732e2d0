"""The pages of the docs: links, commands, snippets, numbers and what is made from the code."""

import re
import runpy
import shlex
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from string import Template

import pytest
import typer
from packaging.requirements import Requirement
from PIL import Image
from typer.core import TyperGroup
from typer.main import get_command

from cl_adapters import __version__
from cl_adapters.benchmarks.listing.option_pages import fill_options, option_table
from cl_adapters.cli import app
from cl_adapters.reports.report import write_report
from cl_adapters.strategies import STRATEGIES, find_strategy
from tests.marks import by_default
from tests.reports.conftest import run_maker
from tests.reports.growing import write_growth
from tests.reports.retrieving import write_retrieving
from tests.reports.test_votes import write_votes
from tests.test_docs import blocks, run

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
FILES = [
    *(f"docs/{page}" for page in PAGES),
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/knn/README.md",
]  # fmt: skip
METHODS = [*STRATEGIES, "avalanche"]


@cache
def text_of(file: Path) -> str:
    return file.read_text("utf-8")


def prose(text: str) -> str:
    """Returns a page without its blocks of code."""
    return re.sub(r"^( *)```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)


# --- Links ---------------------------------------------------------------------------------------


def slug(heading: str) -> str:
    plain = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).strip().lower()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain))


@cache
def anchors(file: Path) -> set[str]:
    """Returns what may stand behind `#`: headings, and modules whose docstrings a page shows."""
    text = prose(text_of(file))
    found, times = set(), Counter[str]()
    for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE):
        name = slug(heading)
        found.add(f"{name}_{times[name]}" if times[name] else name)
        times[name] += 1
    return found | set(re.findall(r"^::: ([\w.]+)$", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", FILES)
def test_every_link_leads_somewhere(name: str) -> None:
    file = ROOT / name
    inside = re.sub(r"`[^`\n]*`", "", prose(text_of(file)))
    for target in re.findall(r"\]\(([^)\s]+)\)", inside):
        if re.match(r"\w+://", target):
            continue
        path, _, anchor = target.partition("#")
        place = (file.parent / path).resolve() if path else file
        assert place.exists(), target
        assert place.is_relative_to(ROOT), target
        if name.startswith("docs/"):  # what lies outside is no page of the site
            assert place.is_relative_to(DOCS), target
        if anchor:
            assert anchor in anchors(place), target


def test_every_page_stands_once_in_the_menu() -> None:
    menu = text_of(ROOT / "mkdocs.yml").split("\nnav:\n")[1]
    named = re.findall(r"([\w/]+\.md)$", menu, flags=re.MULTILINE)
    assert Counter(named) == Counter(page for page in PAGES if not page.startswith("examples/"))


def test_the_site_names_the_repository_where_the_package_does() -> None:
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    address = project.get("urls", {}).get("Repository")
    (said,) = re.findall(r"^repo_url: (.+)$", text_of(ROOT / "mkdocs.yml"), flags=re.MULTILINE)
    assert said == (address or "!ENV [REPO_URL, null]")


def test_the_site_has_a_light_and_a_dark_face() -> None:
    settings = text_of(ROOT / "mkdocs.yml")
    assert re.findall(r"^ +scheme: (\w+)", settings, flags=re.MULTILINE) == ["default", "slate"]
    assert settings.count("prefers-color-scheme") == 3
    assert (DOCS / "site.css").is_file()


# --- Commands ------------------------------------------------------------------------------------


def commands(name: str) -> Iterator[str]:
    """Yields each line of the blocks of a page that are typed into a terminal, without loops."""
    text = text_of(ROOT / name)
    for block in re.findall(r"^ *```console\n(.*?)^ *```$", text, flags=re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            plain = re.sub(r"\s+#.*$", "", line).strip()
            yield from filter(None, (part.strip() for part in plain.split(" && ")))


def parsed(arguments: list[str]) -> tuple[str, dict[str, object]]:
    """Returns the command's name and its options, read as the command line reads them."""
    kind, name, rest, above = get_command(app), "cl-adapters", list(arguments), None
    while isinstance(kind, TyperGroup):
        above = kind.context_class(kind, info_name=name, parent=above)
        name = rest.pop(0)
        found = kind.get_command(above, name)
        assert found is not None, name
        kind = found
    context = kind.make_context(name, rest, parent=above)
    return name, context.params


def check_options(options: dict[str, object]) -> None:
    """Refuses names of strategies, and their options, that do not exist."""
    names = str(options.get("strategy") or "simplecil").split(",")
    built_in = [each for each in names if ".py:" not in each and each != "knn"]
    configs = {each: find_strategy(each).config_class() for each in built_in}
    chosen: dict[str, dict[str, str]] = {each: {} for each in configs}
    for setting in options.get("settings") or ():  # type: ignore[attr-defined]
        key, _, value = setting.partition("=")
        if "$" in setting or len(built_in) < len(names) or ".py:" in value:
            continue
        owner = next((each for each in configs if key.startswith(f"{each}.")), None)
        option = key.removeprefix(f"{owner}.") if owner else key
        known = [each for each in ([owner] if owner else configs)
                 if option.split(".")[0] in type(configs[each]).model_fields]  # fmt: skip
        assert known, setting
        for each in known:
            if "," not in value and "." not in option:  # a list is a sweep's axis
                chosen[each][option] = value
    for each, values in chosen.items():
        configs[each].override(values)
    for recipe in filter(None, [options.get("recipe")]):
        assert (ROOT / str(recipe)).is_file() or Path(str(recipe)).name in OWN_FILES, recipe


OWN_FILES = {"seed2.toml", "lae.toml"}  # which a page writes itself
SHELL = re.compile(r"for \w+ in |do$|done$|set -- |\(echo |\w+=\"|\$\w+ |sed |cd |ls |git |views=")


@pytest.mark.parametrize("name", [name for name in FILES if name != "CHANGELOG.md"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_command_exists(name: str) -> None:
    defined: dict[str, str] = {}
    for line in commands(name):
        if SHELL.match(line):
            defined |= dict(re.findall(r"""^(\w+)=["']([^"']*)["']$""", line))
            continue
        words = shlex.split(Template(line).safe_substitute(defined))
        while "=" in words[0]:  # a variable of the environment
            words.pop(0)
        program = Path(words[0]).name
        if program in CHECKS:
            CHECKS[program](words[1:])
        else:
            assert line.startswith("pip install examples/") or line == ".ci/run", line


def check_ours(words: list[str]) -> None:
    if words != ["--version"]:
        command, options = parsed(words)
        if command in {"run", "sweep", "tune"}:
            check_options(options)


def check_make(words: list[str]) -> None:
    assert re.search(rf"^{words[0]}:", text_of(ROOT / "Makefile"), flags=re.MULTILINE), words


def test_a_command_that_does_not_exist_is_noticed() -> None:
    for line in ("run --stratgy lae", "rum --strategy lae", "data inspekt photos"):
        with pytest.raises((typer.BadParameter.__mro__[1], AssertionError)):
            parsed(line.split())
    for options in ({"strategy": "lae", "settings": ["frozen=1"]}, {"recipe": "none.toml"}):
        with pytest.raises(AssertionError):
            check_options(options)


def check_python(words: list[str]) -> None:
    if words[0] != "-m":
        assert (ROOT / words[0]).is_file(), words
    elif words[1].startswith("cl_adapters"):
        place = ROOT.joinpath(*words[1].split("."))
        assert place.is_dir() or place.with_suffix(".py").is_file(), words
    else:
        assert words[1] in {"venv", "pip", "build", "pytest", "twine"}, words


CHECKS = {
    "cl-adapters": check_ours,
    "make": check_make,
    "python": check_python,
    "python3": check_python,
}


@pytest.mark.parametrize("name", FILES)
def test_no_block_installs_from_an_index_what_none_holds(name: str) -> None:
    code = re.findall(r"```.*?```", text_of(ROOT / name), flags=re.DOTALL)
    assert not [each for each in code if re.search(r"pip install [^\n]*cl-adapters\b", each)]


# --- Methods -------------------------------------------------------------------------------------

HEADINGS = [
    "What it does", "When to take it, and when not", "One command", "Options", "What was measured",
    "Source",
]  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_a_page_of_a_method_has_the_same_order_as_all(name: str) -> None:
    text = text_of(DOCS / "methods" / f"{name}.md")
    assert re.findall(r"^## (.+)$", prose(text), flags=re.MULTILINE) == HEADINGS
    when = text.split("## When")[1].split("\n## ")[0]
    assert "**Take it" in when
    assert "**Do not take it**" in when
    assert "--fidelity official" in text.split("## Source")[1]
    assert f"<!-- options:{'avalanche:Replay' if name == 'avalanche' else name} -->" in text


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_page_of_a_method_cites_what_its_file_cites(name: str) -> None:
    source = " ".join(text_of(DOCS / "methods" / f"{name}.md").split("## Source")[1].split())
    code = text_of(ROOT / "strategies" / f"{name}.py")
    for number in re.findall(r"arXiv:([\d.]+\d)", code):
        assert f"https://arxiv.org/abs/{number}" in source
    assert "arXiv" in code or "No paper" in source


def test_the_tables_of_options_are_what_the_classes_say() -> None:
    for name in METHODS:
        text = text_of(DOCS / "methods" / f"{name}.md")
        assert fill_options(text) == text, "run: python docs/generate.py"
        assert "| option | default |" in text


def test_a_table_of_options_says_what_the_authors_set() -> None:
    rows = option_table("lae").splitlines()
    assert rows[0] == "| option | default | official | values | meaning |"
    (decay,) = (row for row in rows if row.startswith("| `ema_decay`"))
    assert decay == "| `ema_decay` | `auto` | `0.9999` | `auto` or a number | alpha, in [0, 1] |"
    assert "official" not in option_table("simplecil")
    assert "| `budget.adapters` |" in option_table("sema")


# A number stands in one place, with its command, and is quoted elsewhere.
SOURCES = [
    "results.md", "speed.md", "task_free.md", "methods/sema.md", "methods/mos.md",
    "methods/ranpac.md", "methods/avalanche.md", "growth.md",
]  # fmt: skip
QUOTING = ["index.md", "faq.md", "glossary.md", *(
    f"methods/{name}.md" for name in ("index", "simplecil", "lae", "finetune", "joint")
)]  # fmt: skip
NUMBER = re.compile(r"(?<![\w./-])(?:\d+\.\d+|\d{1,3}(?:[,\u202f]\d{3})+)(?![\w]|\.\d)")


def numbers(page: str) -> set[str]:
    text = prose(text_of(DOCS / page))
    text = re.sub(r"<!-- options.*?<!-- end -->|arXiv:[\d.]+|`[^`\n]*`", "", text, flags=re.DOTALL)
    return {each.replace("\u202f", ",") for each in NUMBER.findall(text)}


@pytest.mark.parametrize("page", QUOTING)
def test_a_number_that_is_quoted_stands_where_it_was_measured(page: str) -> None:
    measured = set().union(*(numbers(each) for each in SOURCES))
    known = {"3.11", "3.4"}  # of Python and of megabytes
    assert numbers(page) - known <= measured


# --- Glossary ------------------------------------------------------------------------------------


def test_the_glossary_is_sorted_short_and_used() -> None:
    parts = re.split(r"^## ", text_of(DOCS / "glossary.md"), flags=re.MULTILINE)[1:]
    terms = [part.split("\n", 1)[0] for part in parts]
    assert terms == sorted(terms, key=lambda term: re.sub("[_-]", " ", term.lower()))
    assert len(terms) > 25
    assert all(len(part.split("\n", 1)[1].split()) <= 50 for part in parts)
    linked = {
        anchor
        for page in PAGES
        if page != "glossary.md"
        for anchor in re.findall(r"glossary\.md#([\w-]+)", text_of(DOCS / page))
    }
    assert len(linked) >= 15


# --- Release -------------------------------------------------------------------------------------


def test_the_citation_says_the_package_s_version() -> None:
    (said,) = re.findall(r"^version: (.+)$", text_of(ROOT / "CITATION.cff"), flags=re.MULTILINE)
    assert said == __version__


def test_the_table_of_oldest_versions_is_the_package_s() -> None:
    bounds = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["dependencies"]
    lowest = {each.name: next(s.version for s in each.specifier if s.operator == ">=")
              for each in map(Requirement, bounds)}  # fmt: skip
    table = text_of(DOCS / "install.md").split("## Versions")[1]
    rows = re.findall(r"\| ([a-z-]+) \| (\d[\d.]*) ", table)
    assert len(rows) >= 10
    assert {name: lowest.get(name) for name, _ in rows} == dict(rows)


# --- Snippets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", by_default(STRATEGIES, ["simplecil"]))
def test_the_one_command_of_a_method_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = text_of(DOCS / "methods" / f"{name}.md").split("## One command\n")[1]
    (line,) = re.findall(r"```console\n(.*?)\n```", text.split("\n## ")[0], flags=re.DOTALL)
    assert f"--strategy {name} " in line
    fewer = " --max-images-per-class 60 --num-experiences 6 --changes 3" if "-shift" in line else ""
    run(line + fewer)
    assert list((tmp_path / "runs").rglob("predictions.parquet"))


def run_python(code: str, folder: Path, name: str) -> dict[str, object]:
    quicker = code.replace('stream="digits", ', 'stream="digits", image_size=8, increment=5, ')
    (folder / name).write_text(quicker, "utf-8")
    return runpy.run_path(str(folder / name))


@pytest.mark.slow
def test_the_snippets_of_the_start_page_and_of_the_questions_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (start,) = (code for kind, code in blocks("index.md") if kind == "python")
    run_python(start, tmp_path, "start.py")
    assert (tmp_path / "curve.png").is_file()
    predict, figures = (code for kind, code in blocks("faq.md") if kind == "python")
    found = run_python(predict, tmp_path, "predict.py")
    assert len(found["answers"]) == 4  # type: ignore[arg-type]
    run_python(figures, tmp_path, "figures.py")


def test_the_finder_finds_what_its_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    finder = next(code for kind, code in blocks("task_free.md") if kind == "python")
    (said,) = re.findall(r"print\(.*\)  # (.*)", finder)
    run_python(finder, tmp_path, "finder.py")
    assert capsys.readouterr().out.strip() == said


@pytest.mark.slow
def test_the_comparison_of_detectors_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    _, compare = (code for kind, code in blocks("task_free.md") if kind == "python")
    shorter = {"in DETECTORS:": 'in ["mmd"]:', "range(5)": "range(1)",
               '"seed": seed}': '"seed": seed, "image_size": 16}'}  # fmt: skip
    for long, short in shorter.items():
        assert long in compare
        compare = compare.replace(long, short)
    run_python(compare, tmp_path, "compare.py")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["found", "false_alarms", "delay"] * 2


@pytest.mark.slow
@pytest.mark.skipif(
    not (ROOT.parent / "shared" / "data" / "cifar100_120.parquet").is_file(),
    reason="real images are not beside the checkout",
)
def test_the_comparison_of_pipelines_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    (code,) = (code for kind, code in blocks("protocols.md") if kind == "python")
    shorter = {"range(512)": "range(8)", "torch.rand(16,": "torch.rand(2,", ", 16, 3)": ", 2, 1)",
               ", 512, 2)": ", 8, 1)"}  # fmt: skip
    for long, short in shorter.items():
        assert long in code
        code = code.replace(long, short)
    run_python(code, tmp_path, "pipelines.py")
    assert len(capsys.readouterr().out.splitlines()) == 5


# --- Gallery -------------------------------------------------------------------------------------

GALLERY = runpy.run_path(str(DOCS / "draw_gallery.py"), run_name="gallery")


def test_every_picture_of_the_gallery_is_there_and_small() -> None:
    pictures = sorted(path.stem for path in (DOCS / "gallery").iterdir())
    assert pictures == sorted(name for name, *_ in GALLERY["drawn"](text_of(DOCS / "gallery.md")))
    for path in (DOCS / "gallery").iterdir():
        assert path.stat().st_size < 100_000, path
        with Image.open(path) as picture:
            assert picture.width > 600


@pytest.mark.slow
def test_what_the_gallery_says_draws_its_pictures(tmp_path: Path) -> None:
    make_run = run_maker(tmp_path)
    for seed in (0, 1):
        for stream in ("digits", "digits-shift"):
            known = {"stream": stream, "fingerprint": {"data": stream, "increment": 2}}
            events = make_run("finetune", seed, decay=0.3, **known) / "events.jsonl"
            text = events.read_text("utf-8").replace('"seconds":1.5', '"seconds":2.5')
            events.write_text(text, "utf-8")  # a cost that all methods share is not drawn
            write_votes(make_run("lae", seed, **known), seed)
            write_growth(make_run("sema", seed, **known), ("a", "b", "a", "c"))
            write_retrieving(make_run("mos", seed, **known))
    write_report([tmp_path / "runs"], tmp_path / "report", formats=["png"])
    page, named = text_of(DOCS / "gallery.md"), []
    for name, code, pattern in GALLERY["drawn"](page):
        found = GALLERY["find"](tmp_path, name, code, pattern)
        assert found.is_file(), name
        named.append(pattern.split("digits-")[-1].removeprefix("shift-").split("*")[0].rstrip("-"))
    # And nothing that a report draws is missing.
    drawn = {path.stem for path in (tmp_path / "report" / "figures").glob("*.png")}
    kinds = {re.sub(r"^digits-(shift-)?|-\d\d-.*$|\.png$", "", stem) for stem in drawn}
    assert kinds <= {each.removesuffix(".png") for each in named if each}


FAMILY = runpy.run_path(str(DOCS / "draw_family.py"), run_name="family")


def test_pictures_of_the_family_show_the_numbers_of_its_tables() -> None:
    page = (
        "## Signs\n\n| Method | A_last ↑ | A_avg ↑ | F ↓ | Numbers ↓ | Passes ↓ |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| *joint (upper bound)* | 89.4 ± 7.0 | 89.1 | 4.3 | 18 889 | 1.0 |\n"
        "| ease (mapped=false), one seed | **70.5** | 78.3 | 4.7 | 3 472 745 | 10.0 |\n"
    )
    shown = FAMILY["streams"](page)
    rows = [tuple(each) for each in shown["Signs"]]
    assert rows == [
        ("joint (upper bound)", ("joint", ""), 89.4, 7.0, 18889.0),
        ("ease (mapped=false)", ("ease", "(mapped=false)"), 70.5, 0.0, 3472745.0),
    ]
    drawn = FAMILY["cost_figure"]("Signs", shown["Signs"]).axes[0]
    places = {tuple(line.get_xydata()[0]) for line in drawn.lines if len(line.get_xydata()) == 1}
    assert {(18889.0, 89.4), (3472745.0, 70.5)} <= places
    assert [text.get_text() for text in drawn.texts] == [each[0] for each in rows]
    every = FAMILY["streams"]((DOCS / "family.md").read_text("utf-8"))
    assert all(10 < each.accuracy < 100 for rows in every.values() for each in rows)
