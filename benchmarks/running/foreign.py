"""Any Avalanche benchmark as a run: records and reports for streams that are not ours.

`run_benchmark` trains one strategy on the train stream of a benchmark, experience after experience,
and writes the run directory that `cl-adapters run` would. Whatever labels the benchmark has, inside
the run a class is its position in the order in which the train stream first brings it. Task labels
are not used: a strategy always answers over all classes seen.

What is tested after experience t: where the test stream has as many experiences as the train
stream, its first t + 1; otherwise all of its images, each from the experience on that is the first
to bring its class. Images of a class that is never trained are left out.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypedDict, Unpack

import numpy as np
from avalanche.benchmarks.scenarios import CLScenario
from torch import Tensor
from torch.utils.data import Dataset

from cl_adapters.benchmarks.running.prepare import build_strategy, make_record, open_backbone
from cl_adapters.benchmarks.running.progress import Progress
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.runner import run
from cl_adapters.benchmarks.streams.experiences import experience_dataset, join_streams
from cl_adapters.benchmarks.streams.plans import Indices, StreamPlan
from cl_adapters.errors import InputError, unknown_name
from cl_adapters.paths import user_path
from cl_adapters.records.run_record import RunRecord
from cl_adapters.strategies import STRATEGY_NAMES
from cl_adapters.strategies.core.avalanche_types import AvalancheBenchmark, AvalancheDataset
from cl_adapters.strategies.core.labels import classes_of
from cl_adapters.strategies.core.strategy import AdapterStrategy

__all__ = ["RunSettings", "run_benchmark"]

# Keys of a recipe that say something about a run over a stream that is there already.
_KEYS: Final = (
    "strategy", "seed", "backbone", "weights", "image_size", "precision", "device", "threads",
    "fidelity", "options", "plugins",
)  # fmt: skip
_GROUPS: Final = {"train": "train", "test": "eval"}  # transforms of each stream
# A dataset by its place in a stream, an image by its place in the dataset.
Place = tuple[int, int]


class RunSettings(TypedDict, total=False):
    """What may be said about a run over a benchmark.

    The first nine are keys of a recipe, with its defaults; `image_size` must be that of the
    benchmark's images.

    Attributes:
        order: What to call the class order in the record. Runs with one name are compared although
            their orders differ, as those of several seeds may; without it the record holds the
            labels in their order.
        fixed_views: Says that the training images are not augmented at random.
        restart: Begin again, dropping what is there.
        progress: What to tell about the run.
    """

    seed: int
    backbone: str
    weights: str
    image_size: int
    precision: Literal["fp32", "bf16"]
    device: str
    threads: int
    fidelity: Literal["default", "official"]
    options: dict[str, Any]
    order: str
    fixed_views: bool
    restart: bool
    progress: Progress


def run_benchmark(
    strategy: str | type[AdapterStrategy],
    benchmark: AvalancheBenchmark,
    *,
    name: str,
    out: str | Path = "runs",
    **settings: Unpack[RunSettings],
) -> Path:
    """Runs a strategy over an Avalanche benchmark and returns the run directory.

    A finished run is left as it is; one that was stopped continues. Every image is read once before
    anything is written, for the checks and the checksum.

    Args:
        strategy: Name as in `cl-adapters list strategies`, or a class at the top level of a file.
        benchmark: Any with `train_stream` and `test_stream` whose datasets have `targets` and give
            float images (3, S, S) of the backbone's input size.
        name: What the stream is called in run directories and reports.
        out: Folder of all runs.
        **settings: See `RunSettings`.

    Raises:
        InputError: If anything named is unknown, or the images or labels do not fit.
        RunError: If the run cannot go on.
    """
    for key in settings:
        if key not in RunSettings.__annotations__:
            raise unknown_name("setting", key, RunSettings.__annotations__)
    recipe = {key: value for key, value in settings.items() if key in _KEYS}
    reference = STRATEGY_NAMES.reference(strategy)
    config = RunConfig.parse({"strategy": reference, **recipe}).identified()
    prepared = _prepare(config, benchmark, name, settings)
    return run(
        prepared,
        user_path(out),
        restart=settings.get("restart", False),
        progress=settings.get("progress"),
    )


@dataclass(frozen=True)
class ForeignRun:
    """A strategy over a benchmark that is not ours, as the runner reads it."""

    strategy: AdapterStrategy
    plan: StreamPlan
    record: RunRecord
    threads: int | None
    stream: "ForeignStream"

    def benchmark(self) -> CLScenario:
        """Returns the streams with classes by position."""
        return self.stream.benchmark()


def _prepare(
    config: RunConfig, benchmark: AvalancheBenchmark, name: str, settings: RunSettings
) -> ForeignRun:
    backbone = open_backbone(config)
    fixed_views = settings.get("fixed_views", False)
    strategy = build_strategy(config, backbone, fixed_views=fixed_views)
    stream = ForeignStream(benchmark)
    plan = stream.plan(settings.get("order"))
    fingerprint = {
        "stream": name,
        "data": stream.describe(backbone.model.input_shape),
        **plan.describe(),
        "backbone": backbone.name,
        "weights": backbone.digest,
        "pixels": "as the benchmark gives them",
    }
    record = make_record(config, plan, name, fingerprint)
    kept = {key: value for key, value in record.config.items() if key in _KEYS}
    record.config = {"benchmark": name, "fixed_views": fixed_views, **kept}
    return ForeignRun(strategy, plan, record, config.threads, stream)


class ForeignStream:
    """What the streams of a benchmark hold: labels, positions of classes, images by experience.

    Args:
        benchmark: Any with `train_stream` and `test_stream`.

    Attributes:
        labels: The benchmark's label of each position.

    Raises:
        InputError: If a stream is empty or its labels are no class numbers.
    """

    def __init__(self, benchmark: AvalancheBenchmark) -> None:
        self._sets = {
            "train": [each.dataset for each in benchmark.train_stream],
            "test": [each.dataset for each in benchmark.test_stream],
        }
        for name, datasets in self._sets.items():
            for number, dataset in enumerate(datasets):
                if name == "train" and len(dataset) == 0:
                    raise InputError(f"training experience {number} must hold images, got none")
        brought = [classes_of(each) for each in self._sets["train"]]
        self.labels = list(dict.fromkeys(label for each in brought for label in each))
        self._positions = {label: place for place, label in enumerate(self.labels)}
        self.experiences = tuple(
            tuple(sorted(self._positions[label] for label in each)) for each in brought
        )
        self._places = {"train": self._by_experience("train"), "test": self._tested()}
        if not self._places["test"][0]:
            raise InputError(
                "test stream must hold images of the first experience's classes, got none"
            )

    def plan(self, order: str | None) -> StreamPlan:
        """Returns what each experience holds; images are counted through each stream.

        Args:
            order: Name of the class order's rule; None records the order itself.
        """
        starts = {
            name: np.cumsum([0, *map(len, datasets)]) for name, datasets in self._sets.items()
        }
        train, test = (
            tuple(_counted(places, starts[name]) for places in self._places[name])
            for name in ("train", "test")
        )
        return StreamPlan(
            rule=order or "explicit",
            order=tuple(self.labels) if order is None else tuple(range(len(self.labels))),
            classes=tuple(map(str, self.labels)),
            experiences=self.experiences,
            train=train,
            test=test,
        )

    def benchmark(self) -> CLScenario:
        """Returns Avalanche's streams of it, with classes by position and task label 0."""
        return join_streams(
            **{
                name: [self._dataset(name, places) for places in self._places[name]]
                for name in self._sets
            }
        )

    def describe(self, shape: tuple[int, int, int]) -> dict[str, object]:
        """Returns number and checksum of the images, for a fingerprint; reads each of them.

        Args:
            shape: What each image must have, (C, S, S).

        Raises:
            InputError: If an image is no float tensor of that shape.
        """
        return {
            "classes": len(self.labels),
            **{name: self._checksum(name, shape) for name in self._sets},
        }

    def _checksum(self, name: str, shape: tuple[int, int, int]) -> dict[str, object]:
        views = [each.eval() for each in self._sets[name]]
        samples = []
        for places in self._places[name]:
            for number, index in places:
                image = views[number][index][0]
                _check_image(image, f"{index} of {name} experience {number}", shape)
                label = str(self._label(name, (number, index))).encode()
                samples.append(
                    hashlib.sha256(label + b":" + image.float().numpy().tobytes()).digest()
                )
        # In no order: another order of the same images is the same data.
        whole = hashlib.sha256(b"".join(sorted(samples))).hexdigest()
        return {"images": len(samples), "sha256": whole}

    def _label(self, name: str, place: Place) -> int:
        return int(self._sets[name][place[0]].targets[place[1]])

    def _by_experience(self, name: str) -> list[list[Place]]:
        return [
            [(number, index) for index in range(len(each)) if self._is_known(name, number, index)]
            for number, each in enumerate(self._sets[name])
        ]

    def _is_known(self, name: str, number: int, index: int) -> bool:
        return self._label(name, (number, index)) in self._positions

    def _tested(self) -> list[list[Place]]:
        for each in self._sets["test"]:
            classes_of(each)
        parts = self._by_experience("test")
        if len(parts) == len(self.experiences):
            return parts
        first: dict[int, int] = {}
        for experience, positions in enumerate(self.experiences):
            for position in positions:
                first.setdefault(position, experience)
        regrouped: list[list[Place]] = [[] for _ in self.experiences]
        for place in (place for part in parts for place in part):
            regrouped[first[self._positions[self._label("test", place)]]].append(place)
        return regrouped

    def _dataset(self, name: str, places: Sequence[Place]) -> AvalancheDataset:
        targets = [self._positions[self._label(name, place)] for place in places]
        sets = self._sets[name]
        transforms = {
            "train": _Reading([each.train() for each in sets], places),
            "eval": _Reading([each.eval() for each in sets], places),
        }
        return experience_dataset(_Numbers(targets), targets, transforms, _GROUPS[name])


class _Numbers(Dataset[tuple[int, int]]):
    """Place and class of each image: which view of the image is read, its transform decides."""

    def __init__(self, targets: Sequence[int]) -> None:
        self.targets = list(targets)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, item: int) -> tuple[int, int]:
        return item, self.targets[item]


class _Reading:
    """Reads the image at a place, in the view of one group of transforms."""

    def __init__(self, views: Sequence[AvalancheDataset], places: Sequence[Place]) -> None:
        self._views, self._places = views, places

    def __call__(self, item: int) -> object:
        number, index = self._places[item]
        return self._views[number][index][0]


def _counted(places: Sequence[Place], starts: Indices) -> Indices:
    return np.array([starts[number] + index for number, index in places], dtype=np.int64)


def _check_image(image: object, name: str, shape: tuple[int, int, int]) -> None:
    rule = f"must be a float tensor of shape {shape} for this backbone"
    if not isinstance(image, Tensor):
        raise InputError(f"image {name} {rule}, got a {type(image).__name__}")
    if tuple(image.shape) != shape or not image.is_floating_point():
        raise InputError(f"image {name} {rule}, got {image.dtype} of shape {tuple(image.shape)}")
