"""What a first hour costs: `python -m cl_adapters.benchmarks.maintenance.first_hour`.

Each command runs in a process of its own, as a user's does, and its processor time and its largest
memory are what the system says of that process and all that it started. Images are drawn by chance
from a seed; records of runs are written here and answer by chance. It prints the table that
`docs/first_hour.md` shows.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from PIL import Image

from cl_adapters.benchmarks.maintenance.check_costs import write_record
from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.records.run_record import RunRecord

__all__ = ["FILES", "Spent", "command_lines", "spent", "write_images", "write_runs"]

_SIDE: Final = {"photos": 500, "small": 32}  # pixels
FILES: Final = 200_000
_METHODS: Final = ("lae", "mos", "sema", "simplecil")


@dataclass(frozen=True)
class Spent:
    """What a command took.

    Attributes:
        processor: Seconds of processor time, its child processes included.
        passed: Seconds that passed.
        gap: Longest wait for another line of output, in seconds.
        megabytes: Most memory of the largest of its processes.
    """

    processor: float
    passed: float
    gap: float
    megabytes: float


# A small process starts the command: Linux counts what the one that starts it holds as the
# command's own most memory.
_STARTER: Final = """
import json, pathlib, resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
found = [usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]
pathlib.Path(sys.argv[1]).write_text(json.dumps(found), "utf-8")
raise SystemExit(code)
"""


def spent(command: Sequence[str], folder: Path) -> Spent:
    """Runs a command in a folder and returns what it took.

    Raises:
        RuntimeError: If it ended with anything but 0.
    """
    usage = folder / "usage.json"
    whole = [sys.executable, "-S", "-c", _STARTER, str(usage), *command]
    begun = last = time.monotonic()
    gap, lines = 0.0, [""]
    with subprocess.Popen(
        whole, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            now = time.monotonic()
            gap, last = max(gap, now - last), now
            lines.append(line)
    ended = time.monotonic()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {lines[-1]}")
    processor, megabytes = json.loads(usage.read_text("utf-8"))
    return Spent(processor, ended - begun, max(gap, ended - last), megabytes)


def write_images(folder: Path, number: int, side: int, classes: int = 10) -> None:
    """Writes JPEG images of a side in pixels into class folders, no two of them the same."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class {label}").mkdir(parents=True)
    coarse = max(1, side // 8)
    for place in range(number):
        pixels = rng.integers(0, 256, (coarse, coarse, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
        image.save(folder / f"class {place % classes}" / f"{place}.jpg", quality=90)


def write_runs(folder: Path, number: int, images: int = 100) -> None:
    """Writes finished runs of four methods, with as many seeds as that takes.

    Args:
        folder: Folder of the runs.
        number: How many.
        images: Test images that an experience brings.
    """
    for count in range(number):
        seed, kind = divmod(count, len(_METHODS))
        method = _METHODS[kind]
        place = folder / f"{count}"
        write_record(place, images)
        record = RunRecord.read(place)
        record.strategy, record.seed = method, seed
        record.config = {**record.config, "strategy": method, "seed": seed}
        record.write(place)


def command_lines(files: int = FILES) -> dict[str, list[str]]:
    """Returns what is measured, by its row in the table; `files` are those of the large folder."""
    ours = [sys.executable, "-W", "ignore", "-m", "cl_adapters"]
    return {
        "first accuracy: `run --strategy simplecil`": [
            *ours, "run", "--strategy", "simplecil", "--cache", "off", "--out", "first",
        ],
        "`data inspect` of 400 photos of 500 px": [*ours, "data", "inspect", "photos"],
        f"`data inspect` of {files:,} images of 32 px": [*ours, "data", "inspect", "small"],
        "`report` of 12 runs of 4 methods": [*ours, "report", "twelve", "--out", "r12"],
        "`report` of 200 runs of 4 methods": [*ours, "report", "many", "--out", "r200"],
        "the demo's runs: `sweep examples/demo.toml`": [
            *ours, "sweep", str(Path("examples/demo.toml").resolve()), "--workers", "2",
            "--cache", "off", "--out", "demo",
        ],
        "the demo's report": [*ours, "report", "demo", "--out", "demo-report"],
    }  # fmt: skip


def _prepare(folder: Path, files: int) -> None:
    write_images(folder / "photos", 400, _SIDE["photos"])
    write_images(folder / "small", files, _SIDE["small"], classes=100)
    write_runs(folder / "twelve", 12)
    write_runs(folder / "many", 200)


def _rows(folder: Path, files: int) -> Iterator[list[str]]:
    yield ["what", "processor s", "passed s", "longest silence s", "MB"]
    for what, command in command_lines(files).items():
        found = spent(command, folder)
        yield [
            what,
            f"{found.processor:.1f}",
            f"{found.passed:.1f}",
            f"{found.gap:.1f}",
            f"{found.megabytes:.0f}",
        ]


def main(
    files: Annotated[int, typer.Option(min=100, help="Images of the large folder.")] = FILES,
) -> None:
    """Prints what each command of a first hour takes; needs two idle cores."""
    os.environ.setdefault("COLUMNS", "100")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder, files)
        typer.echo(markdown_table(list(_rows(folder, files))))


if __name__ == "__main__":
    typer.run(main)
