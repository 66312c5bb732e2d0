"""A logger of Avalanche for Weights & Biases, with an axis of its own for each kind of curve."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
from avalanche.evaluation.metric_results import MetricValue
from avalanche.logging import BaseLogger

from cl_adapters.errors import InputError

__all__ = ["WandbLog"]


class WandbLog(BaseLogger):  # type: ignore[misc] # Avalanche ships no types
    """Sends metrics to Weights & Biases, each over its own axis: `epoch` or `experience`.

    Avalanche's own logger has one axis for all. Where the run lies offline, by WANDB_MODE=offline,
    a run that is opened again replaces what it wrote before; online, points that are there stay.

    Args:
        folder: Where files go, into `wandb/` inside.
        name: Of the run, for people.
        key: Of the run, for the service: the same key is the same run.
        project: Of the service.
        config: What the run was asked to do.

    Raises:
        InputError: If the service cannot be reached or knows no user.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        key: str,
        *,
        project: str = "cl-adapters",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for before in (folder / "wandb").glob(f"offline-run-*-{key}"):
            shutil.rmtree(before)
        settings = wandb.Settings(console="off", silent=True)
        try:
            self._run = wandb.init(
                project=project, name=name, id=key, dir=folder, resume="allow",
                config=dict(config or {}), settings=settings, reinit="create_new",
            )  # fmt: skip
        except wandb.errors.Error as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"logger 'wandb' must reach its service or have WANDB_MODE=offline, got: {reason}"
            ) from error
        self._run.define_metric("loss/*", step_metric="epoch")
        for group in ("accuracy", "parameters", "seconds"):
            self._run.define_metric(f"{group}/*", step_metric="experience")
        summary: Any = self._run.summary  # typed as if it took no key
        self._known = {axis: summary.get(axis, -1) for axis in ("epoch", "experience")}

    def log_metrics(self, metric_values: Sequence[MetricValue]) -> None:
        """Writes metrics of one moment as one row."""
        rows: dict[tuple[str, int], dict[str, float]] = {}
        for each in metric_values:
            axis = "epoch" if each.name.startswith("loss/") else "experience"
            if each.x_plot > self._known[axis]:
                rows.setdefault((axis, each.x_plot), {})[each.name] = each.value
        for (axis, place), values in rows.items():
            self._run.log({axis: place, **values})

    def close(self) -> None:
        """Ends the service's run; it may be opened again."""
        self._run.finish()
