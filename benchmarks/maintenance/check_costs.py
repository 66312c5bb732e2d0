"""What the checks of files cost: `python -m cl_adapters.benchmarks.maintenance.check_costs`.

A record of ten experiences and 50,050 predictions is read with its digests and without, and weights
of a ViT-B are loaded with the look for numbers that are none and without. The two ways take turns,
in processor time on one thread; the ratio is the median over pairs, so that a machine that slows
down meanwhile does not decide.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import pandas as pd
import timm
import torch
import typer
from safetensors.torch import save_file

from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.plugins.tables import load
from cl_adapters.records.events import append_events, make_event, read_events
from cl_adapters.records.files import read_file
from cl_adapters.records.integrity import replace_tables, seal_events
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions, table_bytes
from cl_adapters.vit.pretrained import load_backbone
from cl_adapters.vit.weight_files import load_weights

__all__ = ["Cost", "costs", "write_record"]

VIT_B: Final = "vit_base_patch16_224.augreg2_in21k_ft_in1k"
_RECORDS: Final = "cl_adapters.records."
# What is measured there by its name: runs know no reports.
_REPORTS: Final = "cl_adapters.reports.load:load_runs"
_EXPERIENCES: Final = 10
_IMAGES: Final = 910  # test images an experience brings


@dataclass(frozen=True)
class Cost:
    """What checks cost.

    Attributes:
        what: What was done.
        bare: Seconds of the processor without the checks.
        ratio: Those with them over those without, the median over pairs.
    """

    what: str
    bare: float
    ratio: float


def write_record(folder: Path, images: int = _IMAGES) -> None:
    """Writes a finished run of ten experiences of ten classes, which answers by chance.

    Args:
        folder: The run directory.
        images: Test images that an experience brings.
    """
    folder.mkdir(parents=True)
    record = RunRecord(
        strategy="lae",
        stream="photos",
        seed=0,
        config={"strategy": "lae", "data": "photos", "options": {"epochs": 5}},
        fingerprint={"stream": "photos"},
        classes=[f"class {number}" for number in range(10 * _EXPERIENCES)],
        experiences=[list(range(10 * t, 10 * t + 10)) for t in range(_EXPERIENCES)],
        files={},
    )
    tables: list[pd.DataFrame] = []
    for t in range(_EXPERIENCES):
        tables.append(_answers(t, images))
        whole = pd.concat(tables, ignore_index=True)
        name = "predictions.parquet"
        replace_tables(folder, record, {name: table_bytes(name, whole)})
        losses = [1 / (step + 1) for step in range(20)]
        given: dict[str, dict[str, Any]] = {
            "phase": {"seconds": 1.0, "name": "train", "images": images, "losses": losses},
            "cache": {"mode": "exact", "read": 1, "computed": 2, "earlier_hits": 0},
            "evaluation": {"seconds": 1.0, "images": images, "passes": 1.0},
            "parameters": {"trainable": 1000, "added": 1000, "total": 100_000},
            "memory": {"peak_bytes": 10**9},
        }
        append_events(folder, (make_event(kind, experience=t, **given[kind]) for kind in given))
        seal_events(folder, record)
        record.experiences_done = t + 1
        record.state = "finished" if t + 1 == _EXPERIENCES else "running"
        record.write(folder)


def _answers(experience: int, images: int) -> pd.DataFrame:
    source, count = np.random.default_rng(experience), images * (experience + 1)
    target = np.arange(count) % (10 * (experience + 1))
    return pd.DataFrame(
        {
            "experience": experience,
            "sample": np.arange(count),
            "target": target,
            "prediction": source.permutation(target),
            "confidence": source.random(count),
            "nll": source.random(count),
            "target_experience": target // 10,
        }
    )


@contextmanager
def _without_checks() -> Iterator[None]:
    with (
        patch(f"{_RECORDS}integrity._record", lambda _: None),
        patch(f"{_RECORDS}integrity._checked", lambda folder, name, _: read_file(folder / name)),
        patch(f"{_RECORDS}run_record._check_checksum", lambda *_: None),
        patch("cl_adapters.vit.weight_files.refuse_odd_weights", lambda *_: None),
        patch("cl_adapters.vit.pretrained.refuse_odd_weights", lambda *_: None),
    ):
        yield


def _compared(what: str, work: Callable[[], object], pairs: int) -> Cost:
    work()  # what is done the first time only
    bare: list[float] = []
    ratios: list[float] = []
    for number in range(pairs):
        spent: dict[bool, float] = {}
        for is_checked in (True, False) if number % 2 else (False, True):
            if is_checked:
                spent[is_checked] = _seconds(work)
            else:
                with _without_checks():
                    spent[is_checked] = _seconds(work)
        bare.append(spent[False])
        ratios.append(spent[True] / spent[False])
    return Cost(what, statistics.median(bare), statistics.median(ratios))


def _seconds(work: Callable[[], object]) -> float:
    since = time.process_time()
    work()
    return time.process_time() - since


def costs(backbone: str = VIT_B, *, images: int = _IMAGES, pairs: int = 40) -> Iterator[Cost]:
    """Yields what checks cost where records are read and weights are loaded.

    Args:
        backbone: Architecture and tag of the weights.
        images: As for `write_record`.
        pairs: How often each is done in either way; weights a quarter as often.
    """
    torch.set_num_threads(1)
    load_runs = load(_REPORTS)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        write_record(folder, images)
        yield _compared("a record, as `report` reads it", lambda: load_runs([folder]), pairs)
        yield _compared("its files alone", lambda: _read_files(folder), pairs)
        vit = timm.create_model(backbone, num_classes=0)
        for suffix in (".pt", ".safetensors"):
            path = Path(place) / f"weights{suffix}"
            (torch.save if suffix == ".pt" else save_file)(vit.state_dict(), path)
            yield _compared(
                f"weights in {suffix}, to the network that a run asks for",
                lambda: load_backbone(backbone, weights=str(path)),  # noqa: B023 - called at once
                max(1, pairs // 4),
            )
            yield _compared(
                f"weights in {suffix}, into a network that is there",
                lambda: load_weights(vit, path),  # noqa: B023 - called at once
                max(1, pairs // 4),
            )


def _read_files(folder: Path) -> None:
    RunRecord.read(folder)
    read_predictions(folder)
    read_events(folder)


def main(pairs: int = 40) -> None:
    """Prints the table."""
    found = [
        [cost.what, f"{1000 * cost.bare:.1f}", f"x {cost.ratio:.3f}"] for cost in costs(pairs=pairs)
    ]
    typer.echo(markdown_table([["what is read", "ms without checks", "with checks"], *found]))


if __name__ == "__main__":
    typer.run(main)
