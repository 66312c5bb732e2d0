"""Writes the files that are made from the code: `python docs/generate.py`."""  # noqa: INP001 - no package

import json
from pathlib import Path

from cl_adapters.benchmarks.listing import backbones
from cl_adapters.benchmarks.listing.fits import fits_table
from cl_adapters.benchmarks.listing.methods import TABLE, live_methods
from cl_adapters.benchmarks.listing.option_pages import fill_options
from cl_adapters.benchmarks.running.protocols import protocol_table
from cl_adapters.benchmarks.running.reach import commands_table
from cl_adapters.benchmarks.running.recipe_keys import recipe_page

ROOT = Path(__file__).resolve().parent.parent
# Whose commands docs/protocols.md holds; `cl-adapters verify --rows` prints those of all.
COMMANDS_OF = (
    "aper",
    "ease",
    "fecam",
    "inflora",
    "loranpac",
    "ranpac",
    "sd_lora",
    "simplecil",
    "tuna",
)


def main() -> None:
    """Writes them all."""
    table = json.dumps(live_methods(), indent=1, ensure_ascii=False) + "\n"
    (ROOT / "strategies" / TABLE).write_text(table, "utf-8")
    sizes = json.dumps(backbones.live_backbones(), ensure_ascii=False)
    sizes = sizes.replace("], ", "],\n ").replace("null, ", "null,\n ") + "\n"
    (ROOT / "benchmarks" / "listing" / backbones.TABLE).write_text(sizes, "utf-8")
    (ROOT / "docs" / "reference" / "recipe.md").write_text(recipe_page(), "utf-8")
    for page in (ROOT / "docs" / "methods").glob("*.md"):
        page.write_text(fill_options(page.read_text("utf-8")), "utf-8")
    page = ROOT / "docs" / "protocols.md"
    text = between(page.read_text("utf-8"), "protocols", protocol_table())
    page.write_text(between(text, "commands", commands_table(COMMANDS_OF)), "utf-8")
    page = ROOT / "docs" / "pieces.md"
    page.write_text(between(page.read_text("utf-8"), "modules", fits_table()), "utf-8")


def between(text: str, name: str, table: str) -> str:
    """Returns a page with a table in place of what stands between its marks."""
    head, begin, rest = text.partition(f"<!-- {name}:begin -->\n")
    _, end, tail = rest.partition(f"<!-- {name}:end -->")
    return head + begin + table + end + tail


if __name__ == "__main__":
    main()
