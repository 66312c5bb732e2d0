"""Published settings by name: one TOML file a protocol, read, checked and turned into a recipe.

A protocol fixes everything that decides which number a method can reach: the images, the order of
the classes, the experiences, the weights, the pixels and the metric. What it leaves to the user is
listed in `FREE`. A run that names a protocol holds the name in its recipe; what it was really done
on stands in its fingerprint, and `verify` believes only that.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.benchmarks.streams.class_incremental import split_classes
from cl_adapters.errors import InputError, unknown_name
from cl_adapters.images.transforms import (
    INPUT_RANGES,
    RATIO,
    Preprocess,
    Triple,
    pipeline_settings,
)
from cl_adapters.paths import user_path

__all__ = [
    "FREE",
    "PROTOCOLS",
    "Protocol",
    "apply_protocol",
    "check_images",
    "find_protocol",
    "protocol_names",
    "protocol_table",
    "read_protocol",
]

PROTOCOLS: Final = Path(__file__).parent.parent / "protocols"
# Keys of a recipe that no protocol fixes; the seed begins at the protocol's own, `data` must be
# given and leaves `stream` without effect.
FREE: Final = (
    "strategy", "seed", "device", "precision", "threads", "weights", "fidelity", "options", "data",
    "stream", "protocol", "validation",
)  # fmt: skip


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainTransform(_Table):
    """A random resized crop with a flip, as in the authors' code."""

    crop: int = Field(ge=1, description="side of the crop in pixels")
    scale: tuple[float, float] = Field(description="smallest and largest share of the area")
    ratio: tuple[float, float] = Field(description="narrowest and widest shape")
    interpolation: Literal["bicubic", "bilinear"]
    flip: float = Field(ge=0, le=1, description="chance of a horizontal flip")


class EvaluationTransform(_Table):
    """A resize of the short side and a centre crop."""

    resize: int = Field(ge=1, description="short side in pixels")
    interpolation: Literal["bicubic", "bilinear"]
    crop: int = Field(ge=1, description="side of the centre crop in pixels")


class Metrics(_Table):
    """The columns of the report that a paper's numbers mean."""

    a_last: Literal["a_last_micro", "a_last_task_mean"]
    a_avg: Literal["a_avg_micro", "a_avg_task_mean"]
    forgetting: Literal["forgetting_from_best", "forgetting_from_best_before"]


class Protocol(_Table):
    """One published setting; see each field's description."""

    name: str = Field(description="name of the file without its ending")
    title: str = Field(description="what people call it")
    dataset: str = Field(description="name of the data set")
    classes: int = Field(ge=2, description="number of classes")
    train_images: int | None = Field(default=None, ge=1, description="None: not known for certain")
    test_images: int | None = Field(default=None, ge=1, description="None: not known for certain")
    first: int | None = Field(default=None, ge=1, description="classes of the first experience")
    increment: int | None = Field(default=None, ge=1, description="classes an experience")
    domains: tuple[str, ...] = Field(
        default=(), description="instead of `increment`: the domain of each experience, all classes"
    )
    class_order: Literal["natural", "numpy1993", "numpy1995"]
    backbone: str = Field(description="timm architecture and explicit tag")
    other_backbones: tuple[str, ...] = Field(default=(), description="also in published tables")
    image_size: int = Field(ge=1)
    input_range: str = Field(description="pilot_01, timm or imagenet")
    pipeline: Literal["pilot", "lae", "ranpac", "inflora"]
    train: TrainTransform
    test: EvaluationTransform
    metrics: Metrics
    seeds: tuple[int, ...] = Field(min_length=1, description="those of the authors' runs")
    layout: str = Field(description="which folders or files are expected")
    published: str = Field(description="where the authors publish the images")
    source: str = Field(description="where the setting was read")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.input_range not in INPUT_RANGES:
            raise ValueError(f"input_range must be one of {', '.join(INPUT_RANGES)}")
        for name in self.backbones:
            if "." not in name:
                raise ValueError(f"backbone must carry an explicit tag, got {name!r}")
        if (self.increment is None) == (not self.domains) or (self.domains and self.first):
            raise ValueError("experiences must be of `increment` classes or of one domain each")
        if max(self.increment or 0, self.first or 0) > self.classes:
            raise ValueError(f"experiences must not be larger than the {self.classes} classes")
        if (self.train, self.test) != _transforms(self.pipeline, self.image_size):
            raise ValueError(f"train and test must say what pipeline {self.pipeline!r} does")
        return self

    @property
    def backbones(self) -> tuple[str, ...]:
        """Every backbone that published numbers of this protocol have."""
        return (self.backbone, *self.other_backbones)

    @property
    def sizes(self) -> list[int]:
        """Classes of each experience."""
        if self.increment is None:
            return [self.classes] * len(self.domains)
        return [len(each) for each in split_classes(self.classes, self.increment, self.first)]

    def recipe(self) -> dict[str, Any]:
        """Returns the keys of a recipe that the protocol fixes."""
        by_class = {"scenario": "class", "increment": self.increment, "first": self.first}
        by_domain = {"scenario": "domain", "domain_order": ",".join(self.domains)}
        return {
            **(by_domain if self.domains else by_class),
            "class_order": self.class_order,
            "backbone": self.backbone,
            "image_size": self.image_size,
            "input_range": self.input_range,
            "pipeline": self.pipeline,
        }

    def pixels(self, mean: Triple, std: Triple) -> dict[str, object]:
        """Returns what the fingerprint of a run of this protocol says about pixels.

        Args:
            mean: Channel means of the backbone's own configuration, for the range `timm`.
            std: Channel standard deviations, likewise.
        """
        mean, std = INPUT_RANGES[self.input_range] or (mean, std)
        settings = pipeline_settings(self.pipeline, self.image_size)
        return Preprocess(image_size=self.image_size, mean=mean, std=std, **settings).describe()

    def where(self) -> str:
        """Returns which data are expected and who publishes them, for a message."""
        return f"expected is {self.layout}; published by {self.published}"


def _transforms(pipeline: str, size: int) -> tuple[TrainTransform, EvaluationTransform]:
    settings = pipeline_settings(pipeline, size)
    kind = settings["interpolation"]
    train = TrainTransform(
        crop=size,
        scale=settings["scale"],
        ratio=(round(RATIO[0], 4), round(RATIO[1], 4)),
        interpolation=settings.get("train_interpolation", kind),
        flip=0.5,
    )
    resize = settings["resize"] or size
    return train, EvaluationTransform(resize=resize, interpolation=kind, crop=size)


def read_protocol(path: Path) -> Protocol:
    """Reads and checks one protocol.

    Raises:
        InputError: If the file cannot be read or breaks a rule.
    """
    try:
        return Protocol.model_validate(
            {"name": path.stem, **tomllib.loads(path.read_text("utf-8"))}
        )
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"protocol {str(path)!r} must be a readable TOML file, got: {error}"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise InputError(f"protocol {path.stem!r}, {place}: {first['msg']}") from error


def protocol_names() -> list[str]:
    """Returns the names of all protocols, sorted: data sets together, small increments first."""
    return sorted((path.stem for path in PROTOCOLS.glob("*.toml")), key=_by_increment)


def _by_increment(name: str) -> tuple[str, int]:
    start, _, number = name.rpartition("inc")
    return (start, int(number)) if number.isdigit() else (name, 0)


@cache
def find_protocol(name: str) -> Protocol:
    """Returns the protocol of a name.

    Raises:
        InputError: If there is none; near names are suggested.
    """
    names = protocol_names()
    if name not in names:
        raise unknown_name("protocol", name, names)
    return read_protocol(PROTOCOLS / f"{name}.toml")


def apply_protocol(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a recipe with what its protocol fixes; as it is if it names none.

    Raises:
        InputError: If the protocol is unknown, a key contradicts it, or its images are missing.
    """
    if values.get("protocol") is None:
        return dict(values)
    protocol = find_protocol(str(values["protocol"]))
    fixed = protocol.recipe()
    for name, value in values.items():
        if name not in FREE:
            _check_key(protocol, fixed, name, value)
    _check_data(protocol, values)
    return {"seed": protocol.seeds[0], **fixed, **values}


def _check_key(protocol: Protocol, fixed: Mapping[str, Any], name: str, value: object) -> None:
    if name == "backbone" and value in protocol.backbones:
        return
    if name == "backbone":
        known = " or ".join(map(repr, protocol.backbones))
        raise InputError(
            f"`backbone` must be {known} under protocol {protocol.name!r}, got {value!r}"
        )
    if name not in fixed:
        raise InputError(
            f"`{name}` must not be given under protocol {protocol.name!r}, got {value!r}"
        )
    if value != fixed[name]:
        raise InputError(
            f"`{name}` must be {fixed[name]!r} under protocol {protocol.name!r}, got {value!r}"
        )


def _check_data(protocol: Protocol, values: Mapping[str, Any]) -> None:
    path, weights = values.get("data"), values.get("weights")
    if path is None:
        raise InputError(
            f"protocol {protocol.name!r} must be given its images by --data; {protocol.where()}"
        )
    if not user_path(str(path)).exists():
        raise InputError(
            f"data {str(path)!r} of protocol {protocol.name!r} must exist; {protocol.where()}"
        )
    if weights == "random":
        raise InputError(
            f"weights under protocol {protocol.name!r} must be those of its backbone, got 'random'"
        )


def check_images(protocol: Protocol, source: ImageSource) -> list[str]:
    """Compares opened images with a protocol.

    Returns:
        Sentences for the user where the images are not those of the published runs.

    Raises:
        InputError: If the number of classes is another.
    """
    found = len(source.classes)
    if found != protocol.classes:
        raise InputError(
            f"data {source.name!r} must hold the {protocol.classes} classes of protocol "
            f"{protocol.name!r}, got {found}; {protocol.where()}"
        )
    return [
        f"{source.name!r} holds {len(images)} {split} images and protocol {protocol.name!r} "
        f"{expected}; `verify` will not compare such runs"
        for split, images, expected in (
            ("train", source.train, protocol.train_images),
            ("test", source.test, protocol.test_images),
        )
        if expected is not None and len(images) != expected
    ]


def protocol_table() -> str:
    """Returns the table of all protocols in Markdown, for docs/protocols.md."""
    heads = (
        "protocol", "images", "stream", "class order", "weights (first is the default)", "pixels",
        "A_last, A_avg", "seeds",
    )  # fmt: skip
    return markdown_table([heads, *(_cells(find_protocol(name)) for name in protocol_names())])


def _cells(protocol: Protocol) -> list[str]:
    counts = (protocol.train_images, protocol.test_images)
    images = "" if None in counts else ", {:,} + {:,}".format(*counts)
    cut = f"B{protocol.first or 0}-Inc{protocol.increment}"
    if protocol.domains:
        cut = f"domain by domain: {', '.join(protocol.domains)}"
    tags = [name.rpartition(".")[2] for name in protocol.backbones]
    return [
        f"`{protocol.name}`",
        f"{protocol.dataset}{images}",
        f"{protocol.classes} classes, {cut}",
        protocol.class_order,
        " or ".join(f"`{tag}`" for tag in tags),
        f"`{protocol.pipeline}`, `{protocol.input_range}`",
        f"`{protocol.metrics.a_last}`, `{protocol.metrics.a_avg}`",
        ", ".join(map(str, protocol.seeds)),
    ]
