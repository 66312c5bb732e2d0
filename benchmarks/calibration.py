"""Calibrates a model on the training images of its run: rejection of unknown images, shifts.

Of the images of each class in each experience a fifth, drawn by the images' digests, is held out:
the score's statistics come from the others, its threshold from the scores of the held-out ones. The
network that was trained has seen them all; scores of the frozen backbone's features, as the default
is one, do not depend on it.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cl_adapters.benchmarks.data.images import LabelledImages
from cl_adapters.benchmarks.running.prepare import PreparedRun, prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.whole import has_trained_on, with_old_images
from cl_adapters.bundle.calibration import Calibration, frozen_view
from cl_adapters.bundle.files import model_folder
from cl_adapters.bundle.model import BATCH, LearnedModel
from cl_adapters.bundle.rejection import DEFAULT_SCORE, Rejection
from cl_adapters.bundle.sheet import Sheet
from cl_adapters.bundle.watching import FolderWatch, Seen
from cl_adapters.errors import InputError
from cl_adapters.heads.unknown import Score, make_score
from cl_adapters.paths import user_path
from cl_adapters.records.files import read_file
from cl_adapters.records.run_record import RunRecord

__all__ = ["HELD_OUT", "LEAST", "Known", "calibrate", "calibrate_on", "is_held_out", "known_images"]

HELD_OUT: Final = 0.2  # of the images of a class in an experience
LEAST: Final = 10  # held-out images


class Known(NamedTuple):
    """Training images of a run, and the label of each.

    Attributes:
        images: They, as their experience had them.
        labels: Their columns in the model's logits, (N,).
        is_held_out: Which are held out, (N,).
    """

    images: LabelledImages
    labels: npt.NDArray[np.int64]
    is_held_out: npt.NDArray[np.bool_]


def is_held_out(images: LabelledImages) -> npt.NDArray[np.bool_]:
    """Returns which images are held out of a score's statistics, (N,).

    A fifth of each class, rounded, and never all of it: those of the lowest digests, so that the
    same images are held out under any file name and on any machine.
    """
    keys = [hashlib.sha256(b"held out:" + each).digest() for each in images.digests]
    found = np.zeros(len(images), dtype=bool)
    for label in np.unique(images.targets):
        members = np.flatnonzero(images.targets == label).tolist()
        count = min(round(HELD_OUT * len(members)), len(members) - 1)
        found[sorted(members, key=keys.__getitem__)[:count]] = True
    return found


def known_images(prepared: PreparedRun, experiences: int) -> list[Known]:
    """Returns the training images of the first experiences of a run."""
    plan, train = prepared.plan, prepared.source.train
    parts = [plan.part(train, "train", each) for each in range(experiences)]
    return [Known(each, plan.positions(each), is_held_out(each)) for each in parts]


def calibrate(
    run: str | Path,
    model: LearnedModel,
    *,
    score: str = DEFAULT_SCORE,
    batch_size: int = BATCH,
    on_image: Callable[[int], object] = lambda _: None,
) -> Calibration:
    """Measures what training images tell of images to come, and gives it to the model.

    Each training image passes the network once. What is kept grows with classes and features, not
    with images.

    Args:
        run: The run directory that the model comes from, as it was when the model was taken from
            it, or a folder with that run alone.
        model: The model.
        score: One of `cl_adapters.heads.unknown.SCORES`.
        batch_size: Images a forward pass, at least 1.
        on_image: Told after each image how many there are in all.

    Raises:
        InputError: If the score is unknown, the model comes from another run or from another state
            of it, the run's images are missing or no longer the same, or there are too few of them.
    """
    make_score(score, 1)  # refuses an unknown one before anything is opened
    folder = model_folder(user_path(run))
    _check_origin(folder, model.sheet)
    known = known_images(_opened(folder), len(model.sheet.learned))
    return calibrate_on(known, model, score=score, batch_size=batch_size, on_image=on_image)


def calibrate_on(
    known: Sequence[Known],
    model: LearnedModel,
    *,
    score: str = DEFAULT_SCORE,
    batch_size: int = BATCH,
    on_image: Callable[[int], object] = lambda _: None,
) -> Calibration:
    """Does what `calibrate` does with training images that are at hand.

    Args:
        known: The training images.
        model: The model.
        score: As for `calibrate`, and so are the others.
        batch_size: Images a forward pass, at least 1.
        on_image: Told after each image how many there are in all.

    Raises:
        InputError: If there are too few images.
    """
    rule = make_score(score, model.strategy.backbone.embed_dim).to(model.device)
    _check_number(known)
    looks = _Looks(model, known, batch_size, on_image)
    backbone = model.strategy.backbone
    is_own = model.watch is not None and model.watch.is_own
    watch = None if is_own else FolderWatch.new(backbone.embed_dim, backbone.num_blocks)
    blocks, seen = () if watch is None else watch.blocks, Seen()
    for images, labels in looks.batches(held_out=False):
        view = frozen_view(model.strategy, images, blocks)
        rule.add(view.features, labels.to(model.device))
        if watch is not None:
            seen.add(view.mean_tokens)
    if watch is not None:
        watch.fit(seen)
    # The statistics are complete before the first held-out image is scored.
    with model.as_it_was():
        scores = [_scores(model, rule, images) for images, _ in looks.batches(held_out=True)]
    rejection = Rejection(score, rule, torch.cat(scores).cpu().sort().values)
    model.calibration = Calibration(rejection, watch).to(model.device)
    return model.calibration


def _check_origin(folder: Path, sheet: Sheet) -> None:
    """Refuses a run whose record is not the one that the model was taken from."""
    data = read_file(folder / "run.json")
    if data is None:
        raise InputError(f"a calibration must read a run's images, got the bundle {str(folder)!r}")
    if hashlib.sha256(data).hexdigest() == sheet.run.get("digest"):
        return
    found = Sheet.of_run(RunRecord.read(folder), sheet.learned, "")
    same = ("strategy", "fidelity", "options", "seed", "classes", "trained_on")
    if all(getattr(found, name) == getattr(sheet, name) for name in same):
        which = "which has another state than when the model was taken from it; load it again"
    else:
        which = "which is another one"
    raise InputError(
        f"a calibration must read the run that the model comes from, got {str(folder)!r}, {which}"
    )


def _opened(folder: Path) -> PreparedRun:
    """Opens the images of a run again."""
    record = RunRecord.read(folder)
    without = any(each.get("old_test") is not None for each in record.config.get("continued", []))
    try:
        # Nothing is trained: whatever device and compiler the run had need not be here.
        whole = with_old_images({**record.config, "device": "cpu", "compile": False})
        prepared = prepare(RunConfig.parse(whole))
    except InputError as error:
        why = ", which was continued without its old images" if without else ""
        raise InputError(
            f"a calibration must read the training images of run {str(folder)!r}{why}, but: {error}"
        ) from error
    is_same = prepared.record.experiences == record.experiences
    if not is_same or not has_trained_on(record, prepared.source):
        raise InputError(
            f"a calibration must read the training images of run {str(folder)!r} as they were, but "
            "they have changed since"
        )
    return prepared


def _check_number(known: Sequence[Known]) -> None:
    count = sum(int(each.is_held_out.sum()) for each in known)
    if count < LEAST:
        total = sum(len(each.labels) for each in known)
        raise InputError(
            f"a calibration must hold out at least {LEAST} training images, a fifth of each class, "
            f"got {count} of {total}"
        )


@dataclass(frozen=True, eq=False)
class _Looks:
    """Batches of training images, as evaluation shows them."""

    model: LearnedModel
    known: Sequence[Known]
    size: int
    on_image: Callable[[int], object]

    def batches(self, *, held_out: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields images (B, 3, S, S) and labels (B,)."""
        total = sum(len(each.labels) for each in self.known)
        for each in self.known:
            rows = np.flatnonzero(each.is_held_out == held_out)
            for part in np.split(rows, range(self.size, len(rows), self.size)):
                if len(part):
                    shown = [self.model.prepared(each.images.read(int(row))) for row in part]
                    yield torch.stack(shown), torch.from_numpy(each.labels[part])
                    for _ in part:
                        self.on_image(total)


def _scores(model: LearnedModel, rule: Score, images: Tensor) -> Tensor:
    if rule.reads == "logits":
        found: Tensor = rule(model.strategy.answer(images).logits)
        return found
    scores: Tensor = rule(frozen_view(model.strategy, images, ()).features)
    return scores
