"""Watches a strategy through Avalanche's plugin hooks: predictions, timings, progress.

The observer changes nothing: a run with it and one without it learn the same.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from cl_adapters.benchmarks.running.learner import Watched
from cl_adapters.benchmarks.streams.plans import StreamPlan
from cl_adapters.records.tables import PREDICTION_COLUMNS, RETRIEVAL_COLUMNS
from cl_adapters.strategies.core.checkpointing import ResumablePlugin

__all__ = ["Observer"]

# Called with what is going on and how many images were just dealt with.
OnProgress = Callable[[str, int], None]


class Observer(ResumablePlugin):
    """Collects what a run records.

    Args:
        plan: What comes when; None will do where nobody asks for predictions.
        on_progress: Called after each batch.

    Attributes:
        phases: Seconds and images of each training phase of the last experience, by name.
        losses: Mean loss of each of its epochs, by phase; empty where nothing is learned so.
        evaluation: Seconds, images and backbone passes of the last evaluation.
    """

    def __init__(self, plan: StreamPlan | None, on_progress: OnProgress) -> None:
        super().__init__()
        self._plan = plan
        self._on_progress = on_progress
        self._outputs: list[tuple[int, torch.Tensor, torch.Tensor]] = []
        self._answers: list[tuple[int, torch.Tensor, torch.Tensor]] = []
        self._since = 0.0
        self._passes = 0
        self._images = 0
        # Summed over the images of the epoch under way, where the strategy computes: asking a GPU
        # for the number would let it wait.
        self._loss = torch.zeros(())
        self.phases: dict[str, tuple[float, int]] = {}
        self.losses: dict[str, list[float]] = {}
        self.evaluation: tuple[float, int, int] = (0.0, 0, 0)

    def state_dict(self) -> dict[str, Any]:
        """Returns the phases so far, and the time and images of the epoch under way."""
        seconds = time.perf_counter() - self._since
        return {
            "phases": self.phases,
            "seconds": seconds,
            "images": self._images,
            "losses": self.losses,
            "loss": self._loss.item(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on counting where `state` was."""
        phases = state["phases"].items()
        self.phases = {name: (seconds, images) for name, (seconds, images) in phases}
        self._since = time.perf_counter() - state["seconds"]
        self._images = state["images"]
        self.losses = {name: list(each) for name, each in state.get("losses", {}).items()}
        self._loss = torch.tensor(state.get("loss", 0.0))
        done = self._images + sum(images for _, images in self.phases.values())
        self._on_progress("continuing", done)

    def before_training_exp(self, strategy: Watched, **_: object) -> None:  # noqa: ARG002
        """Forgets the timings and losses of the experience before."""
        self.phases, self.losses = {}, {}
        self._images, self._loss = 0, torch.zeros(())

    def before_training_epoch(self, strategy: Watched, **_: object) -> None:  # noqa: ARG002
        """Starts the clock of an epoch."""
        self._since = time.perf_counter()

    def after_training_iteration(self, strategy: Watched, **_: object) -> None:
        """Reports a batch."""
        self._images += len(strategy.mb_y)  # replayed ones too
        if strategy.learns_by_gradient:
            self._loss = self._loss.to(strategy.device) + strategy.loss.detach() * len(
                strategy.mb_y
            )
        epoch = f"epoch {strategy.clock.train_exp_epochs + 1}/{strategy.train_epochs}"
        self._on_progress(f"{strategy.phase} {epoch}", len(strategy.mb_y))

    def after_training_epoch(self, strategy: Watched, **_: object) -> None:
        """Adds an epoch to its phase."""
        seconds, images = self.phases.get(strategy.phase, (0.0, 0))
        seconds += time.perf_counter() - self._since
        self.phases[strategy.phase] = (seconds, images + self._images)
        if strategy.learns_by_gradient and self._images:
            self.losses.setdefault(strategy.phase, []).append(self._loss.item() / self._images)
        self._images, self._loss = 0, torch.zeros(())

    def before_eval(self, strategy: Watched, **_: object) -> None:
        """Starts the clock of an evaluation."""
        self._outputs, self._answers = [], []
        self._since = time.perf_counter()
        self._passes = strategy.backbone.num_passes

    def after_eval_iteration(self, strategy: Watched, **_: object) -> None:
        """Keeps the outputs of a batch."""
        experience = strategy.experience.current_experience
        # Left where they are until the end: a GPU would be waited for.
        self._outputs.append((experience, strategy.mb_output, strategy.mb_y))
        retrieval = strategy.output.extras.get("retrieval")
        if retrieval is not None:
            uncorrected = retrieval.first_logits.argmax(dim=1)
            self._answers.append((experience, uncorrected, retrieval.visited))
        self._on_progress("evaluation", len(strategy.mb_y))

    def after_eval(self, strategy: Watched, **_: object) -> None:
        """Stops the clock of an evaluation."""
        seconds = time.perf_counter() - self._since
        images = sum(len(targets) for _, _, targets in self._outputs)
        self.evaluation = (seconds, images, strategy.backbone.num_passes - self._passes)

    def right_answers(self) -> dict[int, tuple[int, int]]:
        """Returns right answers and images of the last evaluation, by experience evaluated."""
        found: dict[int, tuple[int, int]] = {}
        for evaluated, outputs, targets in self._outputs:
            right, images = found.get(evaluated, (0, 0))
            hits = int((outputs.argmax(dim=1) == targets).sum())
            found[evaluated] = (right + hits, images + len(targets))
        return found

    def predictions(self, experience: int) -> pd.DataFrame:
        """Returns the rows of the last evaluation.

        Args:
            experience: The experience after whose training it took place.
        """
        frames = []
        for evaluated in sorted({each for each, _, _ in self._outputs}):
            outputs = torch.cat([out for each, out, _ in self._outputs if each == evaluated])
            targets = torch.cat([target for each, _, target in self._outputs if each == evaluated])
            frame = _rows(outputs.cpu().double(), targets.cpu())
            if self._plan is None:
                raise ValueError("predictions need the plan that knows their samples")
            frame["sample"] = self._plan.samples(evaluated)
            frame["target_experience"] = evaluated
            frames.append(frame)
        rows = pd.concat(frames, ignore_index=True)
        rows["experience"] = experience
        return rows[list(PREDICTION_COLUMNS)]

    def retrieval(self, predictions: pd.DataFrame) -> pd.DataFrame:
        """Returns how the predictions of the last evaluation were answered; empty if unknown.

        Args:
            predictions: What `predictions` returned.
        """
        if not self._answers:
            return pd.DataFrame(columns=list(RETRIEVAL_COLUMNS))
        parts = sorted(self._answers, key=lambda each: each[0])  # stable: batches keep their order
        shared = [name for name in RETRIEVAL_COLUMNS if name in PREDICTION_COLUMNS]
        rows = predictions[shared].copy()
        rows["uncorrected"] = torch.cat([guesses for _, guesses, _ in parts]).cpu().numpy()
        asked = torch.cat([visited for _, _, visited in parts]).tolist()
        rows["visited"] = [[adapter for adapter in row if adapter >= 0] for row in asked]
        rows["adapter"] = rows["visited"].str[-1]
        return rows


def _rows(outputs: torch.Tensor, targets: torch.Tensor) -> pd.DataFrame:
    log_probabilities = outputs.log_softmax(dim=1)
    confidence, prediction = log_probabilities.max(dim=1)
    nll = -log_probabilities.gather(1, targets[:, None])[:, 0]
    columns = {
        "target": targets,
        "prediction": prediction,
        "confidence": confidence.exp(),
        "nll": nll,
    }
    return pd.DataFrame({name: np.asarray(value) for name, value in columns.items()})
