"""Applies small wrong changes to copies of the checkout and says which the tests notice.

    python tests/mutants.py [--sample 20 --seed COMMIT] [--only EXPRESSION] [--plain] [--trusting]

`tests/mutants.toml` lists them. One process imports what is slow and not ours, and forks a child
for each change: it works in a copy of its own, so two run at a time. `--plain`, and a system that
cannot fork, starts a new pytest each time. Before all, the named tests must pass unchanged.
Exit code 1 if fewer than 95 % of those tried are noticed, 2 if a try says nothing.
"""

import argparse
import compileall
import contextlib
import gc
import importlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
FLOOR: Final = 0.95
WORKERS: Final = 2
LIMIT_SECONDS: Final = 120.0  # of a try: a change that makes a test hang is noticed by that
_WHOLE_SECONDS: Final = 1800.0  # of the tests of all changes together, without a change
OPTIONS: Final = ("-q", "-x", "-p", "no:randomly", "-p", "no:xdist", "-p", "no:cacheprovider")
# What the tests import and nobody changes here; each is imported as far as it is there.
HEAVY: Final = (
    "numpy", "pandas", "pyarrow.parquet", "pyarrow.compute", "scipy.stats", "scipy.optimize",
    "sklearn.linear_model", "sklearn.covariance", "sklearn.discriminant_analysis",
    "sklearn.metrics", "sklearn.datasets", "torch", "torch.utils.data", "torchvision",
    "torchvision.transforms.v2", "timm", "timm.data", "safetensors.torch", "optuna", "avalanche",
    "avalanche.benchmarks", "avalanche.training", "avalanche.models", "avalanche.logging",
    "avalanche.training.supervised", "avalanche.evaluation.metrics", "river.drift",
    "matplotlib.pyplot", "matplotlib.backends.backend_svg", "matplotlib.backends.backend_agg",
    "PIL.Image", "PIL.ImageDraw", "pydantic", "typer.testing", "rich.console", "rich.table",
    "rich.progress", "jinja2", "markupsafe", "filelock", "platformdirs", "packaging.version",
    "pytest", "_pytest.doctest", "hypothesis", "hypothesis.strategies", "hypothesis.extra.numpy",
    "hypothesis.stateful",
)  # fmt: skip


class Try(NamedTuple):
    """A change, how its tests ended, and after how many seconds."""

    mutant: dict[str, Any]
    code: int  # of pytest: 0 all passed, 1 one failed; below 0 a signal; HUNG
    seconds: float
    told: str

    @property
    def by(self) -> str:
        """The test that failed; empty if none did."""
        lines = (line for line in self.told.splitlines() if line.startswith(("FAILED ", "ERROR ")))
        return next(lines, "").partition(" - ")[0].partition(" ")[2]


HUNG: Final = 1000


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


def names_of_files() -> list[str]:
    """Lists what git knows, and what it does not ignore; without git, all but hidden folders."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        return [name for name in done.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        tops = ("cl_adapters", "strategies", "benchmarks", "reports", "tests", "docs", "examples")
        found = [path for top in tops for path in (ROOT / top).rglob("*")]
        kept = [each for each in (*found, *ROOT.glob("*")) if each.is_symlink() or each.is_file()]
        return [str(each.relative_to(ROOT)) for each in kept]


def copied(place: Path) -> None:
    """Copies the checkout, links as links, and compiles it: no child writes what it compiles."""
    for name in names_of_files():
        if name.startswith(("reports/site", "docs/figures")) or not (ROOT / name).exists():
            continue
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place / name, follow_symlinks=False)
    for room in ("cl_adapters", "strategies", "benchmarks", "reports"):
        compileall.compile_dir(place / room, quiet=2)


def limit_of(mutant: dict[str, Any]) -> float:
    """Returns the seconds that the tests of a change may take."""
    return float(mutant.get("seconds", LIMIT_SECONDS))


@contextlib.contextmanager
def changed(mutant: dict[str, Any], place: Path) -> Iterator[None]:
    """Writes a change into a copy; puts the file back as it was, its time too."""
    path = place / mutant["place"]
    before = path.read_text("utf-8")
    path.write_text(before.replace(mutant["old"], mutant["new"]), "utf-8")
    try:
        yield
    finally:
        shutil.copy2(ROOT / mutant["place"], path)


def tried_plainly(chosen: Iterable[dict[str, Any]], place: Path) -> Iterator[Try]:
    """Tries changes one after the other, each with a new pytest."""
    for each in chosen:
        yield plain_try(each, place)


def plain_try(mutant: dict[str, Any], place: Path) -> Try:
    """Tries a change with a new pytest."""
    command = [sys.executable, "-m", "pytest", *OPTIONS, *mutant["tests"]]
    there = {**os.environ, "PYTHONPATH": str(place)}
    begun = time.monotonic()
    with changed(mutant, place):
        try:
            done = subprocess.run(
                command,
                cwd=place,
                env=there,
                check=False,
                capture_output=True,
                timeout=limit_of(mutant),
            )
            code, told = done.returncode, done.stdout.decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            code, told = HUNG, ""
    return Try(mutant, code, time.monotonic() - begun, told)


def import_heavy() -> None:
    """Imports what is slow; refuses if that began a thread, which a fork would lose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in HEAVY:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    named = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    # The allocator of pyarrow sees to its own thread at a fork; the first name is this process.
    others = [name for name in named[1:] if not name.startswith("jemalloc")]
    if others:
        raise RuntimeError(f"threads {others} run before the first fork; try --plain")
    if any(name.split(".")[0] == "cl_adapters" for name in sys.modules):
        raise RuntimeError("cl_adapters was imported before the change; try --plain")


def child(tests: list[str], place: Path, folder: Path) -> int:
    """Runs tests in this forked process, in a copy; returns pytest's exit code."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(os.open(folder / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.chdir(place)
    os.environ.update({"PYTHONPATH": str(place), "TMPDIR": str(folder)})
    tempfile.tempdir = None
    sys.path[:] = [str(place), *(each for each in sys.path if each != str(ROOT / "tests"))]
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    for seed in (random.seed, importlib.import_module("numpy").random.seed):
        seed(0)
    importlib.import_module("torch").manual_seed(0)
    pytest = importlib.import_module("pytest")
    # Plugins that were imported before pytest began have no assertions to show.
    quiet = ("-W", "ignore::pytest.PytestAssertRewriteWarning", "--hypothesis-seed=0")
    return int(pytest.main([*OPTIONS, *quiet, *tests]))


class Forks:
    """Tries changes in forked children, one a copy at a time."""

    def __init__(self, places: list[Path]) -> None:
        self.free = list(places)
        self.running: dict[int, tuple[dict[str, Any], Path, Path, float]] = {}

    def start(self, mutant: dict[str, Any]) -> None:
        """Writes a change and forks; there must be a free copy."""
        place = self.free.pop()
        folder = Path(tempfile.mkdtemp())
        path = place / mutant["place"]
        path.write_text(path.read_text("utf-8").replace(mutant["old"], mutant["new"]), "utf-8")
        sys.stdout.flush()
        process = os.fork()
        if process == 0:
            code = 70
            try:
                code = child(mutant["tests"], place, folder)
            except BaseException:  # noqa: BLE001 - whatever it is, it is told
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        self.running[process] = (mutant, place, folder, time.monotonic())

    def ended(self) -> Try:
        """Waits for the next child that ends, or for one whose time is over."""
        while True:
            for process, (mutant, *_, begun) in self.running.items():
                if time.monotonic() - begun > limit_of(mutant):
                    os.kill(process, signal.SIGKILL)
                    os.waitpid(process, 0)
                    return self._end(process, HUNG)
                found, status = os.waitpid(process, os.WNOHANG)
                if found:
                    return self._end(process, os.waitstatus_to_exitcode(status))
            time.sleep(0.02)

    def _end(self, process: int, code: int) -> Try:
        """Ends what a child has started, and makes its copy free again."""
        mutant, place, folder, begun = self.running.pop(process)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        shutil.copy2(ROOT / mutant["place"], place / mutant["place"])
        told = (folder / "told").read_text("utf-8", "replace") if (folder / "told").exists() else ""
        shutil.rmtree(folder, ignore_errors=True)
        self.free.append(place)
        return Try(mutant, code, time.monotonic() - begun, told)


def tried_in_forks(chosen: Iterable[dict[str, Any]], places: list[Path]) -> Iterator[Try]:
    """Tries changes, as many at a time as there are copies."""
    forks = Forks(places)
    for each in chosen:
        if not forks.free:
            yield forks.ended()
        forks.start(each)
    while forks.running:
        yield forks.ended()


def unchanged(chosen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Makes as many tries without a change as there are workers, of all tests that are named."""
    tests = sorted({test for each in chosen for test in each["tests"]})
    place = chosen[0]["place"] if chosen else ""
    parts = [tests[worker::WORKERS] for worker in range(WORKERS)]
    return [
        {
            "name": "no change",
            "place": place,
            "old": "",
            "new": "",
            "tests": part,
            "seconds": _WHOLE_SECONDS,
        }
        for part in parts
        if part
    ]


def word(done: Try) -> str:
    """Says how a try ended."""
    if done.code == HUNG:
        return "hung    "
    if done.code in {0, 1}:
        return "noticed " if done.code else "SURVIVED"
    return "ended   " if done.code < 0 else "UNCLEAR "  # a signal; or nothing was tested


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="how many to try; all if left out")
    parser.add_argument("--seed", default="0", help="text that chooses them")
    parser.add_argument("--only", default="", help="expression for names or places")
    parser.add_argument("--plain", action="store_true", help="a new pytest for each")
    parser.add_argument(
        "--trusting", action="store_true", help="do not first run the tests without a change"
    )
    return parser.parse_args()


def selected(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns what the options choose of the table, in the table's order."""
    chosen = [
        each for each in mutants() if re.search(options.only, f"{each['name']} {each['place']}")
    ]
    if options.sample is not None and options.sample < len(chosen):
        picked = random.Random(options.seed).sample(range(len(chosen)), options.sample)
        chosen = [chosen[index] for index in sorted(picked)]
    return chosen


def check_unchanged(chosen: list[dict[str, Any]], tries: Callable[..., Iterator[Try]]) -> None:
    """Refuses tests that fail, or do not run, where nothing is changed."""
    for done in tries(unchanged(chosen)):
        if done.code != 0:
            how = f"pytest ended with {done.code}: {done.told[-1500:]}"
            raise RuntimeError(f"the tests must pass without any change, {how}")


def score(chosen: list[dict[str, Any]], tries: Callable[..., Iterator[Try]]) -> int:
    """Tries changes and prints each, the score, the time and the survivors."""
    begun = time.monotonic()
    missed = []
    unclear = 0
    for done in tries(chosen):
        said = word(done)
        by = f" (by {done.by})" if done.by else ""
        print(f"{said} {done.seconds:5.1f} s  {done.mutant['name']}{by}", flush=True)  # noqa: T201
        missed += [done.mutant["name"]] if said in {"SURVIVED", "UNCLEAR "} else []
        if said == "UNCLEAR ":
            unclear += 1
            print(done.told[-1500:])  # noqa: T201
    share = 1 - len(missed) / max(len(chosen), 1)
    minutes = (time.monotonic() - begun) / 60
    print(  # noqa: T201
        f"{len(chosen) - len(missed)} of {len(chosen)} noticed ({share:.1%}), {minutes:.1f} minutes"
    )
    for name in missed:
        print(f"not noticed: {name}")  # noqa: T201
    return 2 if unclear else int(share < FLOOR)


def main() -> int:
    """Tries changes in copies of the checkout; returns the exit code."""
    options = arguments()
    os.environ["OMP_NUM_THREADS"] = "1"
    chosen = selected(options)
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder).resolve() / str(worker) for worker in range(WORKERS)]
        for place in places:
            copied(place)
        try:
            tries = partial(tried_plainly, place=places[0])
            if not options.plain and hasattr(os, "fork"):
                import_heavy()
                tries = partial(tried_in_forks, places=places)
            if not options.trusting:
                check_unchanged(chosen, tries)
            return score(chosen, tries)
        except RuntimeError as error:
            print(error, file=sys.stderr)  # noqa: T201
            return 2


if __name__ == "__main__":
    ended = main()
    sys.stdout.flush()
    os._exit(ended)  # what was imported has much to say at an end
