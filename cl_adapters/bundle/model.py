"""A trained model that answers images, and what it answers.

    model = cl_adapters.load("runs/photos/sema/seed0-1a2b3c4d")
    answers = model.predict(["cat.jpg", "dog.jpg"])
    answers.names, answers.confidence

It knows nothing of data sets or streams. Its answers are those that the run's own evaluation gave,
bit for bit on one machine where the images come in the same batches.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from cl_adapters.bundle.calibration import Calibration, FrozenView, frozen_view, own_mean_tokens
from cl_adapters.bundle.rejection import UNKNOWN, check_rate
from cl_adapters.bundle.sheet import Sheet
from cl_adapters.bundle.watching import FolderWatch, Seen
from cl_adapters.errors import InputError
from cl_adapters.images.decoding import decode_image
from cl_adapters.images.transforms import Preprocess
from cl_adapters.paths import user_path
from cl_adapters.records.files import read_file
from cl_adapters.shift.bank import DetectorBank
from cl_adapters.strategies.core.output import Output
from cl_adapters.strategies.core.strategy import AdapterStrategy

__all__ = ["Answers", "AnyImage", "LearnedModel", "adapters_of", "pixels_of_image"]

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]
# A file, its bytes, a picture of Pillow's, or pixels (H, W, 3) or (H, W) as uint8.
AnyImage = str | Path | bytes | Image.Image | Pixels

BATCH: Final = 64


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model answers for N images over its C classes.

    Attributes:
        classes: Names of the classes, by column.
        labels: Column of the class that each image is taken for, (N,).
        probabilities: (N, C), each row adds up to 1.
        logits: What the probabilities are the softmax of, (N, C).
        experience: The experience that first brought the class of each answer, (N,).
        adapters: The adapter that answered, (N,), by where it sits: `all blocks` where a method
            has one set (MOS) or path (SEMA) for an image, `block 11` where a router chooses in a
            block (SEMA in slots). Empty where a method has nothing to choose.
        known: Whether each image is of a known class, (N,); None where nobody asked. Only this
            tells a rejected image from one of a class that is called `unknown`.
        score: How strange each image is, (N,), the larger the stranger; None where nobody asked.
    """

    classes: tuple[str, ...]
    labels: Numbers
    probabilities: Floats
    logits: Floats
    experience: Numbers
    adapters: Mapping[str, Numbers] = field(default_factory=dict)
    known: Flags | None = None
    score: Floats | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> list[str]:
        """Name of the class that each image is taken for; `unknown` for one that is rejected."""
        names = [self.classes[label] for label in self.labels.tolist()]
        if self.known is None:
            return names
        known = self.known.tolist()
        return [name if each else UNKNOWN for name, each in zip(names, known, strict=True)]

    @property
    def confidence(self) -> Floats:
        """Probability of the class that each image is taken for, (N,)."""
        found: Floats = self.probabilities.max(axis=1)
        return found

    def top(self, count: int) -> list[list[tuple[str, float]]]:
        """Returns the most probable classes of each image with their probabilities, best first.

        Args:
            count: How many, at least 1; all classes where there are fewer.

        Raises:
            InputError: If it is less.
        """
        if count < 1:
            raise InputError(f"top must be asked for at least 1 class, got {count}")
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :count]
        return [
            [(self.classes[each], float(row[each])) for each in best.tolist()]
            for best, row in zip(order, self.probabilities, strict=True)
        ]

    @staticmethod
    def joined(parts: Sequence["Answers"]) -> "Answers":
        """Returns the answers of several batches, at least one, as one."""
        arrays = {
            name: np.concatenate([getattr(each, name) for each in parts])
            for name in ("labels", "probabilities", "logits", "experience", "known", "score")
            if getattr(parts[0], name) is not None
        }
        adapters = {
            place: np.concatenate([each.adapters[place] for each in parts])
            for place in parts[0].adapters
        }
        return Answers(parts[0].classes, **arrays, adapters=adapters)


class LearnedModel:
    """A trained model.

    Args:
        sheet: What is known of it.
        strategy: The strategy, restored.
        preprocess: From pixels to the network's input.
        calibration: What training images tell of images to come; None where nobody asked them.

    Attributes:
        classes: Names of the classes that it knows, by column of the probabilities.
        class_experiences: The experience that first brought each of them.
    """

    def __init__(
        self,
        sheet: Sheet,
        strategy: AdapterStrategy,
        preprocess: Preprocess,
        calibration: Calibration | None = None,
    ) -> None:
        self.sheet, self.strategy, self.preprocess = sheet, strategy, preprocess
        self.calibration = calibration
        first: dict[int, int] = {}
        for experience, labels in enumerate(sheet.learned):
            for label in labels:
                first.setdefault(label, experience)
        self._labels = sorted(first)
        self.classes = tuple(sheet.classes[label] for label in self._labels)
        self.class_experiences = np.array([first[each] for each in self._labels], dtype=np.int64)

    def __repr__(self) -> str:
        known = f"{len(self.classes)} classes of {len(self.sheet.learned)} experiences"
        return f"LearnedModel({self.sheet.strategy}, {known}, {self.sheet.backbone['name']})"

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        where: torch.device = self.strategy.device
        return where

    @property
    def watch(self) -> FolderWatch | None:
        """What tells whether many images look shifted; None before a calibration.

        A method's own detectors, where it has learned some.
        """
        bank = getattr(self.strategy.model, "detectors", None)
        if isinstance(bank, DetectorBank) and len(bank):
            return FolderWatch(bank, is_own=True)
        return None if self.calibration is None else self.calibration.watch

    def predict(
        self,
        images: AnyImage | Iterable[AnyImage],
        *,
        batch_size: int = BATCH,
        reject: float | None = None,
    ) -> Answers:
        """Answers images.

        Args:
            images: One or several: paths of files, encoded bytes, pictures of Pillow's, pixels
                (H, W, 3) or (H, W) as uint8, or an array of such, (N, H, W, 3). At least one.
            batch_size: Images a forward pass, at least 1.
            reject: Share of images of known classes that may be called unknown, in (0, 1), so that
                those of no known class are; None rejects none.

        Raises:
            InputError: If an image cannot be read, or there is none, or the model is not calibrated
                for the share.
        """
        if not _is_one(images) and not isinstance(images, Iterable):
            raise InputError(f"images must be one or several, got {images!r}")
        several = [cast("AnyImage", images)] if _is_one(images) else images
        parts = list(
            self.predict_batches(
                cast("Iterable[AnyImage]", several), batch_size=batch_size, reject=reject
            )
        )
        if not parts:
            raise InputError("images must be at least one, got none")
        return Answers.joined(parts)

    def predict_batches(
        self,
        images: Iterable[AnyImage],
        *,
        batch_size: int = BATCH,
        reject: float | None = None,
    ) -> Iterator[Answers]:
        """Yields the answers batch by batch, so that any number of images fits into memory.

        Args:
            images: As for `predict`; read when their batch comes.
            batch_size: Images a forward pass, at least 1.
            reject: As for `predict`.

        Raises:
            InputError: If an image cannot be read, or the model is not calibrated for the share.
        """
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        waiting = iter(images)
        with self.as_it_was():
            while batch := list(islice(waiting, batch_size)):
                inputs = torch.stack([self.prepared(image) for image in batch])
                yield self.answer(inputs, reject=reject)

    def prepared(self, image: AnyImage) -> Tensor:
        """Returns the network's input for an image: (3, S, S) uint8.

        Raises:
            InputError: If it cannot be read.
        """
        return self.preprocess.evaluate(pixels_of_image(image))

    def answer(
        self, inputs: Tensor, *, reject: float | None = None, seen: Seen | None = None
    ) -> Answers:
        """Answers one batch of what `prepared` gives, (B, 3, S, S).

        Args:
            inputs: The batch.
            reject: As for `predict`.
            seen: What keeps the mean tokens that `watch` judges; None keeps none.

        Raises:
            InputError: If an answer is no number, or the model is not calibrated.
        """
        output = self.strategy.answer(inputs)
        # As the run's record has it: over all columns, in float64.
        logits = output.logits.cpu().double()
        if not bool(torch.isfinite(logits.amax(dim=1)).all()):
            raise InputError(
                f"answers must be finite numbers, got NaN or infinity in {self.sheet.precision}"
            )
        found = self._answers(output, logits)
        if reject is None and seen is None:
            return found
        view = self._view(inputs, is_rejecting=reject is not None, is_watching=seen is not None)
        if seen is not None:
            seen.add(view.mean_tokens if view and view.mean_tokens else own_mean_tokens(output))
        return found if reject is None else self._rejected(found, logits, view, reject)

    def _answers(self, output: Output, logits: Tensor) -> Answers:
        columns = torch.tensor(self._labels)
        log_probabilities = logits.log_softmax(dim=1)[:, columns]
        labels = log_probabilities.argmax(dim=1).numpy()
        return Answers(
            self.classes,
            labels,
            log_probabilities.exp().numpy(),
            logits[:, columns].numpy(),
            self.class_experiences[labels],
            adapters_of(output),
        )

    def threshold(self, reject: float) -> float:
        """Returns the score above which an image is rejected.

        Args:
            reject: As for `predict`.

        Raises:
            InputError: If the model is not calibrated for the share.
        """
        return self._calibrated(reject).rejection.threshold(reject)

    def _calibrated(self, reject: float) -> Calibration:
        check_rate(reject)
        if self.calibration is None:
            raise InputError(
                "a model must be calibrated to reject images, on the training images of its run "
                "(`cl_adapters.calibrate`)"
            )
        return self.calibration

    def _rejected(
        self, answers: Answers, logits: Tensor, view: FrozenView | None, reject: float
    ) -> Answers:
        rule = self._calibrated(reject).rejection
        features = None if view is None else view.features
        scores = rule.scores(logits, features).numpy()
        return replace(answers, known=scores <= rule.threshold(reject), score=scores)

    def _view(self, inputs: Tensor, *, is_rejecting: bool, is_watching: bool) -> FrozenView | None:
        """Returns what the frozen backbone makes of images; None where nobody needs it."""
        watch, calibration = self.watch, self.calibration
        if is_watching and watch is None:
            raise InputError("a model must be calibrated to watch for shifts")
        blocks = watch.blocks if is_watching and watch and not watch.is_own else ()
        reads = calibration.rejection.score.reads if is_rejecting and calibration else "logits"
        if not blocks and reads == "logits":
            return None
        return frozen_view(self.strategy, inputs, blocks)

    @contextmanager
    def as_it_was(self) -> Iterator[None]:
        """Undoes what answers change, which is nothing but with MOS's `merge_in_evaluation`."""
        if not self.strategy.answers_change_it:
            yield
            return
        kept = {name: value.clone() for name, value in self.strategy.learned_state().items()}
        try:
            yield
        finally:
            self.strategy.model.load_state_dict(kept, strict=False)


def _is_one(images: AnyImage | Iterable[AnyImage]) -> bool:
    is_pixels = isinstance(images, np.ndarray) and images.ndim in (2, 3)
    return is_pixels or isinstance(images, str | Path | bytes | Image.Image)


def pixels_of_image(image: AnyImage) -> Pixels:
    """Returns an image's pixels, upright and in RGB: (H, W, 3) uint8.

    Raises:
        InputError: If it cannot be read, or is no picture.
    """
    if isinstance(image, str | Path):
        data = read_file(user_path(image))
        if data is None:
            raise InputError(f"image {str(image)!r} must exist")
        return decode_image(data, repr(str(image)))
    if isinstance(image, bytes):
        return decode_image(image, "of the bytes given")
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InputError(
            "pixels must be uint8 of shape (H, W, 3) or (H, W), got "
            f"{pixels.dtype} of shape {pixels.shape}"
        )
    return pixels


def adapters_of(output: Output) -> dict[str, Numbers]:
    """Returns the adapter that answered each image, by where it sits."""
    found: dict[str, Numbers] = {}
    retrieval = output.extras.get("retrieval")
    if retrieval is not None:
        asked = retrieval.visited
        last = (asked >= 0).sum(dim=1, keepdim=True) - 1
        found["all blocks"] = asked.gather(1, last)[:, 0].cpu().numpy()
    if "paths" in output.extras:
        return {"all blocks": output.extras["paths"].cpu().numpy()}
    for block, record in output.extras.get("router", {}).items():
        found[f"block {block}"] = record.weights.argmax(dim=1).cpu().numpy()
    return found
