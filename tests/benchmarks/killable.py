"""Runs of every built-in strategy on a tiny stream, in processes that may be killed at any moment."""

import faulthandler
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from cl_adapters.benchmarks.data.sources import ImageSource, array_source
from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.records.events import read_events
from cl_adapters.records.run_record import find_runs
from cl_adapters.strategies.core.paths import SLOTS

OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "acmap": {"epochs": 2},
    "aper": {"epochs": 2},
    "cl_lora": {"epochs": 2, "kd_step": "separate_forward"},
    "coda_prompt": {"epochs": 2, "per_experience": 2},
    "cofima": {"epochs": 2, "alignment_epochs": 2, "alignment_samples": 16},
    "dualprompt": {"epochs": 2},
    "ease": {"epochs": 2},
    "fecam": {},
    "finetune": {"epochs": 2},
    "hide_prompt": {"epochs": 1, "guess_epochs": 1, "alignment_epochs": 2},
    "inflora": {"epochs": 2, "rank": 4},
    "joint": {"epochs": 2},
    "l2p": {"epochs": 2},
    "lae": {"epochs": 2, "freeze_epochs": 1},
    "loranpac": {"projections": 100},
    "mos": {"epochs": 2, "alignment_epochs": 2},
    "ranpac": {"projections": 50, "epochs": 2},
    "sd_lora": {"epochs": 2},
    # In slots, and with a threshold that lets every block grow: several phases an experience.
    "sema": {
        **SLOTS,
        "epochs": 1,
        "descriptor_epochs": 2,
        "detect_batch_size": 12,
        "threshold": 0.01,
    },
    "simplecil": {},
    "slca": {"epochs": 2, "alignment_epochs": 2, "alignment_samples": 16},
    "ssiat": {"epochs": 2, "alignment_epochs": 2, "alignment_samples": 16},
    "tuna": {"epochs": 2, "alignment_epochs": 2},
}
# Other forms of a method, which keep something else in their checkpoints.
VARIANTS: Final[dict[str, dict[str, Any]]] = {
    **{
        f"aper {each}": {"strategy": "aper", "options": {"epochs": 2, "variant": each}}
        for each in ("ssf", "vpt_shallow", "vpt_deep", "finetune")
    },
    "ease beta": {"strategy": "ease", "options": {"beta": 0.5, "reweight": False}},
    "fecam first session": {"strategy": "fecam", "options": {"first_session": True, "epochs": 2}},
    "loranpac first session": {
        "strategy": "loranpac",
        "options": {"projections": 100, "first_session": True, "epochs": 2},
    },
    "ranpac alone": {
        "strategy": "ranpac",
        "options": {"projections": 50, "first_session": False},
    },
}


def stripes(*, train: int, test: int, noise: int = 90, row: int = 150) -> ImageSource:
    """Six classes told apart by a brighter row in noise, with so many images each."""
    generator = np.random.default_rng(0)

    def images(per_class: int) -> tuple[np.ndarray, np.ndarray]:
        targets = np.repeat(np.arange(6), per_class)
        pixels = generator.integers(0, noise, (len(targets), 12, 12, 3), dtype=np.uint8)
        for index, target in enumerate(targets):
            pixels[index, 2 * target : 2 * target + 2] += row
        return pixels, targets

    return array_source("stripes", images(train), images(test))


def in_two_domains(source: ImageSource) -> ImageSource:
    """The same images, every other one of another domain."""
    train, test = (
        replace(each, domains=np.array(["ink", "pencil"])[np.arange(len(each)) % 2])
        for each in (source.train, source.test)
    )
    return replace(source, train=train, test=test)


SOURCE: Final = in_two_domains(stripes(train=12, test=4))
# Streams beside classes in turn, and what else a recipe can bring, each with a method.
STREAMS: Final[dict[str, dict[str, Any]]] = {
    "blurry": {"strategy": "lae", "scenario": "blurry", "blur": 0.25},
    "long_tailed": {"strategy": "finetune", "scenario": "long_tailed", "imbalance": 2},
    "repetition": {"strategy": "mos", "scenario": "repetition", "num_experiences": 3},
    "domain": {"strategy": "simplecil", "scenario": "domain"},
    "class_domain": {"strategy": "finetune", "scenario": "class_domain"},
    "shift": {
        "strategy": "lae",
        "scenario": "shift",
        "num_experiences": 4,
        "changes": 2,
        "recurring": 1,
    },
    "task_free": {
        "strategy": "finetune",
        "task_free": "mahalanobis",
        "reference": 20,
        "window": 20,
    },
    "fixed views": {"strategy": "lae", "fixed_views": 2},
    "validation": {"strategy": "simplecil", "validation": 0.25},
    "avalanche": {"strategy": "avalanche:EWC"},
}


def config(strategy: str, **changes: Any) -> RunConfig:
    """The embedded backbone, three experiences, random crops: everything that draws is at work."""
    known = OPTIONS.get(strategy, {"epochs": 2})
    options = {"batch_size": 8, **known, **changes.pop("options", {})}
    values = {"strategy": strategy, "increment": 2, "image_size": 16, "augment": "crop"}
    if changes.get("scenario") in ("domain", "shift", "repetition"):
        del values["increment"]
    return RunConfig.parse({**values, "threads": 1, "options": options, **changes})


def run(strategy: str, out: Path, minutes: float = 0, **changes: Any) -> Path:
    """Runs a strategy, or what is left of it, in this process."""
    prepared = prepare(config(strategy, **changes), source=SOURCE)
    return runner.run(prepared, out, checkpoint_minutes=minutes)


def forked(work: Callable[[], Any]) -> int:
    """Starts work in a process of its own and returns its id; it ends with code 1 if it raises."""
    child = os.fork()  # what was imported is there at once, and the tiny network needs no threads
    if child:
        return child
    code = 1
    # One that hangs says where, and ends; pytest would wait for it, and never know.
    faulthandler.dump_traceback_later(240, exit=True, file=sys.__stderr__)
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


def kill_after(seconds: float, child: int) -> bool:
    """Kills a process after a while; returns whether it came to that."""
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def killed_at_write(number: int, work: Callable[[], Any]) -> bool:
    """Starts work that is killed when it flushes a file for the n-th time; whether it came to that.

    Even numbers die before the file is flushed, odd ones after.
    """

    def dying() -> None:
        left, flush = [number], os.fsync

        def fsync(handle: int) -> None:
            left[0] -= 1
            if left[0] == 0 and number % 2 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            flush(handle)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        os.fsync = fsync
        work()

    return os.waitpid(forked(dying), 0)[1] == signal.SIGKILL


def outcome(out: Path) -> dict[str, Any]:
    """What must be the same however often a run was stopped."""
    (folder,) = find_runs([out])
    state = json.loads((folder / "run.json").read_text())
    facts = ("event", "experience", "name", "images", "block", "scores", "adapters")
    return {
        "state": state["state"],
        "predictions": (folder / "predictions.parquet").read_bytes(),
        "learned": [
            path.read_bytes() for path in sorted(folder.glob("checkpoints/*/*.safetensors"))
        ],
        "events": [[each.as_line().get(fact) for fact in facts] for each in read_events(folder)],
        "files": sorted(path.name for path in folder.rglob("*") if path.is_file()),
    }
