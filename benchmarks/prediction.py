"""Answers many images: a table of what each is taken for, and how that fits their labels."""

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cl_adapters.benchmarks.data.pictures import Picture
from cl_adapters.bundle.model import BATCH, Answers, LearnedModel
from cl_adapters.bundle.rejection import UNKNOWN
from cl_adapters.errors import InputError, listed, unknown_name
from cl_adapters.records.files import atomic_path

__all__ = [
    "Confusion",
    "Prediction",
    "Unreadable",
    "check_labels",
    "check_table_path",
    "copy_by_class",
    "predict",
    "write_table",
]

_REJECTED: Final = f"{UNKNOWN} (rejected)"
_WRITERS: Final[Mapping[str, Callable[[pd.DataFrame, Path], object]]] = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
    ".json": lambda table, path: path.write_text(
        json.dumps(table.to_dict("records"), indent=1, ensure_ascii=False) + "\n", "utf-8"
    ),
}


class Unreadable(NamedTuple):
    """An image that could not be answered, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Prediction:
    """What a model answers for many images.

    Attributes:
        table: A row for each image that could be read: `image`, `prediction`, `confidence`, then
            `prediction_2`, `confidence_2` and so on as far as was asked for, `experience` (the one
            that first brought the class), `adapter...` where the method has several, `known` and
            `score` (how strange) where images may be rejected, and `label` where it is known.
        pictures: The images of the rows.
        unreadable: The others.
        classes: Names of all classes that the model knows.
    """

    table: pd.DataFrame
    pictures: Sequence[Picture]
    unreadable: Sequence[Unreadable]
    classes: Sequence[str]

    @property
    def called(self) -> list[str]:
        """What each image is called where a rejected one must not be taken for one of a class.

        As in the table, but rejected ones are `unknown (rejected)` where a class is `unknown`.
        """
        names = self.table["prediction"]
        if "known" in self.table and UNKNOWN in self.classes:
            names = names.where(self.table["known"], _REJECTED)
        return [str(name) for name in names]


def predict(
    model: LearnedModel,
    pictures: Sequence[Picture],
    *,
    top: int = 1,
    batch_size: int = BATCH,
    on_image: Callable[[], object] = lambda: None,
    answer: Callable[[Tensor], Answers] | None = None,
) -> Prediction:
    """Answers images; one that cannot be read stops nothing.

    Args:
        model: What answers.
        pictures: The images, at least one.
        top: How many classes to name for each, at least 1.
        batch_size: Images a forward pass, at least 1.
        on_image: Called after each image.
        answer: What answers a batch, such as `model.answer` with a rate of rejection; None for
            `model.answer` alone.

    Raises:
        InputError: If no image can be read, or the model is not calibrated for what is asked.
    """
    bad: list[Unreadable] = []
    kept: list[Picture] = []
    frames: list[pd.DataFrame] = []
    with model.as_it_was():
        for part, inputs in _batches(model, pictures, batch_size, bad):
            frames.append(_rows(model, part, (answer or model.answer)(inputs), top))
            kept += part
            for _ in part:
                on_image()
    if not frames:
        raise InputError(
            f"at least one of {len(pictures)} images must be readable, got: {bad[0].reason}"
        )
    return Prediction(pd.concat(frames, ignore_index=True), kept, bad, model.classes)


def _batches(
    model: LearnedModel, pictures: Sequence[Picture], size: int, bad: list[Unreadable]
) -> Iterator[tuple[list[Picture], Tensor]]:
    part: list[Picture] = []
    inputs: list[Tensor] = []
    for picture in pictures:
        try:
            inputs.append(model.prepared(picture.pixels()))
        except InputError as error:
            bad.append(Unreadable(_as_text(picture.name), _as_text(str(error))))
            continue
        part.append(picture)
        if len(part) == size:
            yield part, torch.stack(inputs)
            part, inputs = [], []
    if part:
        yield part, torch.stack(inputs)


def _rows(
    model: LearnedModel, pictures: Sequence[Picture], answers: Answers, top: int
) -> pd.DataFrame:
    best = answers.top(min(top, len(answers.classes)))
    columns: dict[str, object] = {"image": [_as_text(each.name) for each in pictures]}
    # The first is the answer itself, however close the second is.
    columns |= {"prediction": answers.names, "confidence": answers.confidence}
    for place in range(1, len(best[0])):
        columns[f"prediction_{place + 1}"] = [row[place][0] for row in best]
        columns[f"confidence_{place + 1}"] = [row[place][1] for row in best]
    names = model.sheet.experiences
    columns["experience"] = [names[each] or str(each) for each in answers.experience.tolist()]
    for where, adapters in answers.adapters.items():
        name = "adapter" if where == "all blocks" else f"adapter_{where.replace(' ', '_')}"
        columns[name] = adapters
    if answers.known is not None:
        columns |= {"known": answers.known, "score": answers.score}
    if any(each.label is not None for each in pictures):
        columns["label"] = [each.label for each in pictures]
    return pd.DataFrame(columns)


def _as_text(name: str) -> str:
    # Bytes of a file's name that are no UTF-8 stand in it as halves of characters.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def check_labels(model: LearnedModel, pictures: Sequence[Picture]) -> list[Picture]:
    """Refuses labels that the model's classes lack; returns the images with the classes' names.

    A label may be the end of one class's name: the folder `00007` is the class `signs/00007` of a
    model that learned several data sets.

    Raises:
        InputError: If there are no labels, or one is no class of the model.
    """
    counts = Counter(each.label for each in pictures)
    if None in counts:
        raise InputError(
            f"`--labels` must find a label for each image, but {counts[None]} of {len(pictures)} "
            "have none: a table needs a column of labels"
        )
    whole, known = _whole_labels(model, pictures), set(model.classes)
    counts = Counter(each.label for each in whole)
    strange = [name for name in counts if name not in known]
    if strange:
        error = unknown_name("class", str(strange[0]), model.classes)
        raise InputError(
            f"`--labels` must find classes that the model knows, got {listed(strange)} "
            f"({sum(counts[name] for name in strange)} images); {error}"
        )
    return whole


def _whole_labels(model: LearnedModel, pictures: Sequence[Picture]) -> list[Picture]:
    # A label that is a class, or ends the names of several or of none, stays as it is.
    whole: dict[str, list[str]] = defaultdict(list)
    for name in model.classes:
        parts = name.split("/")
        for start in range(1, len(parts)):
            whole["/".join(parts[start:])].append(name)
    sure = {end: names[0] for end, names in whole.items() if len(names) == 1}
    sure |= {name: name for name in model.classes}
    return [replace(each, label=sure.get(str(each.label), each.label)) for each in pictures]


@dataclass(frozen=True)
class Confusion:
    """How predictions fit labels.

    Attributes:
        accuracy: Share of right answers, in percent.
        classes: A row for each class among the labels: name, images, right answers in percent, and
            what it is most often mistaken for, with how often; the worst class first.
    """

    accuracy: float
    classes: Sequence[tuple[str, int, float, str]]

    @classmethod
    def of(cls, table: pd.DataFrame) -> "Confusion":
        """Returns that of a table with the columns `label` and `prediction`.

        An image that is rejected is answered wrongly: its class is known.
        """
        if "known" in table:  # rejected is not the same as taken for a class called `unknown`
            table = table.assign(prediction=table["prediction"].where(table["known"], _REJECTED))
        is_right = (table["label"] == table["prediction"]).to_numpy()
        rows = []
        for name, part in table.groupby("label", sort=False):
            wrong = Counter(part.loc[part["prediction"] != name, "prediction"])
            most = wrong.most_common(1)
            mistaken = f"{most[0][0]} ({most[0][1]})" if most else ""
            share = 100 * (1 - sum(wrong.values()) / len(part))
            rows.append((str(name), len(part), share, mistaken))
        rows.sort(key=lambda row: (row[2], row[0]))
        return cls(100 * float(np.mean(is_right)), rows)


def check_table_path(path: Path) -> None:
    """Refuses a file that `write_table` could not write.

    Raises:
        InputError: If its name does not say csv, parquet or json, or it is a folder.
    """
    if path.suffix.lower() not in _WRITERS:
        raise InputError(f"`--out` must end in {', '.join(_WRITERS)}, got {str(path)!r}")
    if path.is_dir():
        raise InputError(f"`--out` must be a file, got the folder {str(path)!r}")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Writes a table as csv, parquet or json, by the file's name; whole or not at all.

    Raises:
        InputError: If it cannot be written.
    """
    try:
        with atomic_path(path) as temporary:
            _WRITERS[path.suffix.lower()](table, temporary)
    except OSError as error:
        raise InputError(
            f"`--out` must be a file that can be written, got {str(path)!r}: {error.strerror}"
        ) from error


def copy_by_class(prediction: Prediction, folder: Path) -> None:
    """Copies each image into a folder named as the class that it is taken for.

    Rejected images go to `unknown`, or to another folder where the model has a class of that name,
    whether or not an image was taken for it.
    A name that is there already gets a number; nothing is overwritten.

    Args:
        prediction: What was answered.
        folder: Where the class folders are made.

    Raises:
        InputError: If the folder lies where the images lie, or cannot be written.
    """
    try:
        for picture, name in zip(prediction.pictures, prediction.called, strict=True):
            place = folder / _as_folder(name)
            place.mkdir(parents=True, exist_ok=True)
            source = Path(picture.name)
            if source.is_file():
                shutil.copy2(source, _free(place, source.name))
            else:
                data = picture.encoded()
                _free(place, f"row{picture.row:06d}{_suffix(data)}").write_bytes(data)
    except OSError as error:
        raise InputError(f"`--copy-to` must be writable, got: {error}") from error


def _as_folder(name: str) -> str:
    plain = "".join(f"%{ord(char):02X}" if char in "/\\\0%" else char for char in name)
    return plain.strip() if plain.strip() not in ("", ".", "..") else "_"


def _free(folder: Path, name: str) -> Path:
    place, number = folder / name, 1
    while place.exists():
        place = folder / f"{Path(name).stem}-{number}{Path(name).suffix}"
        number += 1
    return place


def _suffix(data: bytes) -> str:
    starts = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"GIF8": ".gif", b"BM": ".bmp"}
    found = [suffix for start, suffix in starts.items() if data.startswith(start)]
    is_webp = data[8:12] == b"WEBP"
    return ".webp" if is_webp else (found[0] if found else ".img")
