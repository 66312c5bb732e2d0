"""Applies small wrong changes to copies of the checkout and says which the tests notice.

    python tests/mutants.py [--sample 20 --seed COMMIT] [--only WORDS]

`tests/mutants.toml` lists them. Exit code 1 if fewer than 95 % of those tried are noticed.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
FLOOR: Final = 0.95


def mutants() -> list[dict[str, Any]]:
    """Returns the table; refuses a change whose text does not stand there once."""
    found = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text("utf-8"))["mutant"]
    for each in found:
        count = (ROOT / each["place"]).read_text("utf-8").count(each["old"])
        if count != 1:
            raise ValueError(
                f"{each['name']}: `old` must stand once in {each['place']}, got {count}"
            )
    return list(found)


def copied(place: Path) -> None:
    """Copies what git knows, and what it does not ignore, links as links."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, names.split("\0")):
        if name.startswith(("reports/site", "docs/figures")) or not (ROOT / name).exists():
            continue
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place / name, follow_symlinks=False)


def is_noticed(mutant: dict[str, Any], place: Path) -> bool:
    """Applies a change, runs its tests, takes it back; says whether a test failed."""
    path = place / mutant["place"]
    before = path.read_text("utf-8")
    path.write_text(before.replace(mutant["old"], mutant["new"]), "utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", *mutant["tests"]]
        there = {**os.environ, "PYTHONPATH": str(place)}
        done = subprocess.run(command, cwd=place, env=there, check=False, capture_output=True)
    finally:
        path.write_text(before, "utf-8")
    if done.returncode not in {0, 1}:  # neither all passed nor some failed: nothing was tested
        raise RuntimeError(f"{mutant['name']}: {done.stdout.decode()[-500:]}")
    return done.returncode == 1


def main() -> int:
    """Tries changes and prints the score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="how many to try; all if left out")
    parser.add_argument("--seed", default="0", help="text that chooses them")
    parser.add_argument("--only", default="", help="words of a name")
    options = parser.parse_args()
    chosen = [each for each in mutants() if options.only in each["name"]]
    if options.sample is not None and options.sample < len(chosen):
        chosen = random.Random(options.seed).sample(chosen, options.sample)
    noticed = 0
    with tempfile.TemporaryDirectory() as folder:
        copied(Path(folder))
        for each in chosen:
            found = is_noticed(each, Path(folder))
            noticed += found
            print(f"{'noticed ' if found else 'SURVIVED'} {each['name']}", flush=True)  # noqa: T201
    print(f"{noticed} of {len(chosen)} noticed")  # noqa: T201
    return 0 if noticed >= FLOOR * len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
