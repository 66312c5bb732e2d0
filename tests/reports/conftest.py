"""Synthetic run directories, written with the functions that the runner uses."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import write_predictions
from cl_adapters.records.upgrade import role_of
from cl_adapters.reports.groups import Group, group_runs
from cl_adapters.reports.load import load_runs
from tests.reports.lines import append_event

MakeRun = Callable[..., Path]


def make_predictions(
    sizes: list[int], per_class: int, decay: float, seed: int, *, sees_future: bool = False
) -> pd.DataFrame:
    """Returns predictions whose accuracy falls with the age of the target's experience."""
    generator = np.random.default_rng(seed)
    first = np.cumsum([0, *sizes])
    num_classes = int(first[-1])
    target = np.repeat(np.arange(num_classes), per_class)
    target_experience = np.searchsorted(first, target, side="right") - 1
    frames = []
    for trained in range(len(sizes)):
        shown = (
            np.full(target.shape, fill_value=True) if sees_future else target_experience <= trained
        )
        age = trained - target_experience[shown]
        chance = np.where(age < 0, 0.1, 0.93 - decay * np.maximum(age, 0))
        is_right = generator.random(age.size) < chance
        other = (target[shown] + generator.integers(1, max(num_classes, 2), age.size)) % num_classes
        confidence = np.clip(chance + generator.normal(0, 0.08, age.size), 0.02, 1)
        frames.append(
            pd.DataFrame(
                {
                    "experience": trained,
                    "sample": np.flatnonzero(shown),
                    "target": target[shown],
                    "prediction": np.where(is_right, target[shown], other),
                    "confidence": confidence,
                    "nll": np.where(is_right, -np.log(confidence), 2.5),
                    "target_experience": target_experience[shown],
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def write_events(folder: Path, num_experiences: int) -> None:
    """Writes the events of a run that took 2 s to train and 0.5 s to evaluate an experience."""
    lines = []
    for t in range(num_experiences):
        lines.append(
            f'{{"event":"phase","experience":{t},"seconds":1.5,"name":"train","images":9}}'
        )
        lines.append(
            f'{{"event":"phase","experience":{t},"seconds":0.5,"name":"freeze","images":9}}'
        )
        lines.append(
            f'{{"event":"evaluation","experience":{t},"seconds":0.5,"images":9,"passes":{t + 1}.0}}'
        )
    (folder / "events.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    append_event(folder, "memory", num_experiences - 1, 0.0, peak_bytes=64 * 2**20)


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Returns a function that writes one run directory below `tmp_path / "runs"`."""
    return run_maker(tmp_path)


def run_maker(root: Path) -> MakeRun:
    """Returns a function that writes one run directory below `root / "runs"`."""

    def make(
        strategy: str = "lae",
        seed: int = 0,
        *,
        stream: str = "digits",
        sizes: tuple[int, ...] = (2, 2, 2, 2),
        per_class: int = 12,
        decay: float = 0.1,
        options: dict[str, Any] | None = None,
        fingerprint: dict[str, Any] | None = None,
        folder: Path | None = None,
        sees_future: bool = False,
        **changes: Any,
    ) -> Path:
        first = np.cumsum([0, *sizes])
        config = {"strategy": strategy, "stream": stream, "seed": seed, "options": options or {}}
        record = RunRecord(
            strategy=strategy,
            stream=stream,
            seed=seed,
            config=changes.pop("config", config),
            fingerprint=fingerprint or {"data": "abc", "weights": "test", "increment": sizes[-1]},
            classes=[f"class {position}" for position in range(int(first[-1]))],
            experiences=[list(range(int(a), int(b))) for a, b in pairwise(first)],
            state=changes.pop("state", "finished"),
            experiences_done=changes.pop("experiences_done", len(sizes)),
            parameters=changes.pop("parameters", {"backbone": 300_000, "added": 12_345}),
            role=changes.pop("role", role_of(strategy)),
            **changes,
        )
        place = folder or root / "runs" / record.directory
        record.write(place)
        frame = make_predictions(list(sizes), per_class, decay, seed + 17, sees_future=sees_future)
        write_predictions(place, frame)
        write_events(place, len(sizes))
        return place

    return make


def only_group(tmp_path: Path) -> Group:
    """Returns the one group of the runs below `tmp_path / "runs"`."""
    (group,) = group_runs(load_runs([tmp_path / "runs"]).finished)
    return group


@pytest.fixture
def group(make_run: MakeRun, tmp_path: Path) -> Group:
    """Three methods with three seeds each, one of them an upper bound."""
    for seed in (0, 1, 2):
        make_run("lae", seed, decay=0.03)
        make_run("finetune", seed, decay=0.25)
        make_run("joint", seed, decay=0.0)
    return only_group(tmp_path)
