"""Writes the table of `docs/reliability.md` from what the tests have counted.

make reliability                     runs the tests, which write tests/reliability.json
python docs/reliability_table.py     writes the table
"""  # noqa: INP001 - no package

import json
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "reliability.md"
COUNTS: Final = ROOT / "tests" / "reliability.json"
START: Final = "<!-- made by docs/reliability_table.py -->\n"
END: Final = "<!-- until here -->\n"

# What the tests record, in the order of the table, and what it means.
TOLD: Final = {
    "kills survived": "runs killed by SIGKILL and continued, of every strategy and scenario, half "
    "at random times, half while a file is written: the end of a straight run, bit for bit",
    "kills of sweeps and their workers survived": "the same of `sweep`, and of its workers",
    "kills of searches survived": "the same of `tune`",
    "kills of reports survived": "the same of `report`: runs untouched, what is there is whole",
    "races of two processes": "two processes racing for one directory",
    "faults injected": "disk faults (full, failing, half a write) at every write of a run, and "
    "files torn by hand",
    "damages of finished runs": "random damages of a finished run (bits, cuts, doubled pieces, "
    "digits, rows cut by a valid writer), each read by every reader: refused by name, or the same "
    "is read",
    "damages of unfinished runs, read again": "the same of runs that were killed, each taken up "
    "until it would train: refused, or from a moment that it had been through",
    "damages of unfinished runs, run to the end": "the same, run to the end: refused, or the end "
    "of a straight run",
    "damaged cache blocks": "damaged blocks of the feature cache: passed over, or the right rows",
    "bad inputs tried": "bad inputs, each with its sentence",
    "odd folders": "folders of chance: read whole, or refused in one sentence",
    "odd tables": "tables of chance: the same",
    "odd recipes and options": "recipes and options of chance, up to where training would begin: "
    "taken as they were given, or refused in one sentence",
    "odd command lines": "command lines of chance: exit code 0, or 1 or 2 and one sentence",
    "odd files of weights": "files of weights of chance: the network has what is in them, or they "
    "are refused in one sentence",
    "odd plug-ins": "plug-ins of chance, checked and run: sound, or one sentence; never a good end "
    "of a run that is not whole",
    "pieces of rubbish for parsers": "rubbish for every parser",
    "experiences soaked": "experiences in one process (see below)",
}


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the table of what the tests have counted, a line for each test file."""
    order = list(TOLD)
    lines = ["| what | how many | lost | test |", "| --- | --- | --- | --- |"]
    for each in sorted(rows, key=lambda row: (order.index(row["what"]), row["test"])):
        numbers = f"{each['count']:,} | {each['losses']}"
        lines.append(f"| {TOLD[each['what']]} | {numbers} | `{each['test']}` |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """Returns the page with the table as the counts now say."""
    before, rest = text.split(START)
    _, after = rest.split(END)
    return before + START + "\n" + table(json.loads(COUNTS.read_text("utf-8"))) + "\n" + END + after


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
