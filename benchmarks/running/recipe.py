"""The recipe of a run: everything that decides its result, validated in one place.

The command's options, the keys of a TOML file (`--recipe`) and the `config` in `run.json` are the
same names. One recipe is one run: one strategy, one stream, one seed.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from cl_adapters.benchmarks.streams.changes import KINDS
from cl_adapters.errors import InputError, unknown_name
from cl_adapters.plugins.registry import source_digests
from cl_adapters.vit.embedded import EMBEDDED

__all__ = ["SHIFT_SUFFIX", "RunConfig", "read_recipe"]

SHIFT_SUFFIX: Final = "-shift"
# Keys that not every scenario has; the first scenario here with a key is the one messages name.
SCENARIO_KEYS: Final = {
    "class": ("increment", "first"),
    "domain": ("domain_order",),
    "shift": (
        "shifts", "severity", "transition", "num_experiences", "changes", "recurring",
        "test_images",
    ),
    "blurry": ("increment", "first", "blur"),
    "long_tailed": ("increment", "first", "imbalance", "tail", "head_images"),
    "repetition": ("num_experiences", "repeat"),
    "class_domain": ("increment", "first", "domain_order"),
}  # fmt: skip
# Defaults that differ from those of the first scenario with the key.
SCENARIO_DEFAULTS: Final[Mapping[str, Mapping[str, object]]] = {
    "repetition": {"num_experiences": 5},
}
# Keys that only a task-free stream has.
TASK_FREE_KEYS: Final = ("reference", "window", "patience", "false_alarm", "max_images")
# Keys that a published pixel pipeline settles.
PLAIN_KEYS: Final = ("augment", "crop_scale")


class RunConfig(BaseModel):
    """The recipe of one run; see each field's description."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    strategy: str = Field(description="name of a strategy")
    stream: str = Field(
        default="digits", description="built-in source; NAME-shift adds scenario 'shift'"
    )
    data: str | None = Field(
        default=None, description="image folder or parquet file; replaces stream"
    )
    validation: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of each class's train images to evaluate on instead of the test images",
    )
    increment: int = Field(default=2, ge=1, description="classes an experience")
    first: int | None = Field(default=None, ge=0, description="classes of the first experience")
    scenario: Literal[
        "class", "domain", "class_domain", "blurry", "long_tailed", "repetition", "shift"
    ] = Field(
        default="class",
        description="what an experience brings: new classes, a domain, a shift; classes that leak, "
        "have fewer images each or return; a group of classes in a domain",
    )
    domain_order: str = Field(
        default="natural", description="natural (by name), seeded, or a list of domains"
    )
    shifts: str = Field(
        default=",".join(KINDS), description="kinds of change that make the new domains"
    )
    severity: float = Field(default=1.0, description="of the changes, from 0 to 1")
    transition: Literal["abrupt", "gradual"] = Field(
        default="abrupt", description="gradual: the share of changed images grows with each stay"
    )
    num_experiences: int = Field(
        default=14, description="experiences of a shift stream; of one with repetition: 5"
    )
    changes: int = Field(default=6, description="experiences with another domain than the last")
    recurring: int = Field(default=2, description="changes that return to a domain seen before")
    test_images: int | None = Field(
        default=None, description="test images an experience of a shift stream; None: all"
    )
    blur: float = Field(
        default=0.1, description="share of each class's train images that leak, in [0, 1)"
    )
    imbalance: float = Field(
        default=10.0, description="train images of the largest class over those of the smallest"
    )
    tail: Literal["ordered", "shuffled"] = Field(
        default="ordered", description="classes get smaller in class order, or by chance"
    )
    head_images: int | None = Field(
        default=None, description="train images of the largest class; None: the source's smallest"
    )
    repeat: float = Field(
        default=0.2, description="probability that a class returns in a later experience"
    )
    task_free: str | None = Field(
        default=None,
        description="name of a detector that has to announce where experiences begin; None: told",
    )
    reference: int = Field(
        default=96, ge=20, description="task-free: images of a segment that its detector knows"
    )
    window: int = Field(default=32, ge=20, description="task-free: images judged together")
    patience: int = Field(
        default=1, ge=1, description="task-free: strange windows in a row that make a boundary"
    )
    false_alarm: float = Field(
        default=0.002, gt=0, lt=1, description="task-free: share of known windows that may fire"
    )
    max_images: int | None = Field(
        default=None, ge=1, description="task-free: most images of a segment; None: any number"
    )
    class_order: str = Field(default="seeded", description="natural, seeded, numpy1993 or a list")
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="of class order, weights and order of images"
    )
    backbone: str = Field(default=EMBEDDED, description="timm architecture and tag")
    weights: str | None = Field(default=None, description="weight file, or 'random'")
    image_size: int | None = Field(default=None, ge=1, description="side of the input in pixels")
    input_range: str = Field(default="timm", description="timm, pilot_01 or imagenet")
    pipeline: Literal["plain", "pilot", "lae"] = Field(
        default="plain", description="from image to input: the keys below, or as PILOT or LAE do"
    )
    augment: Literal["none", "crop", "crop_flip"] = Field(default="none", description="in training")
    crop_scale: float = Field(
        default=0.5, gt=0, le=1, description="smallest share of a random crop"
    )
    fixed_views: int | None = Field(
        default=None,
        ge=1,
        lt=2**32,
        description="augmented views of an image in all; None: a new one at each use",
    )
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="of forward passes")
    compile: bool = Field(
        default=False, description="let torch.compile fuse the blocks; changes the last digits"
    )
    device: str = Field(default="cpu", description="torch device, or 'auto'")
    threads: int | None = Field(default=None, ge=1, description="CPU threads; None: torch's choice")
    fidelity: Literal["default", "official"] = Field(default="default", description="of the method")
    protocol: str | None = Field(
        default=None, description="published setting that fixed the other keys"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of the strategy")
    plugins: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of each file that a name here leads to"
    )

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Returns the recipe of a mapping.

        Raises:
            InputError: If a key is unknown or a value breaks its rule.
        """
        for name in values:
            if name not in cls.model_fields:
                raise unknown_name("recipe key", name, cls.model_fields)
        try:
            config = cls.model_validate(_with_scenario(values))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise InputError(
                f"recipe key `{place}`: {first['msg']}, got {first['input']!r}"
            ) from error
        _refuse_others(values, config.scenario)
        if config.task_free is None:
            _refuse_task_free(values)
        for name in PLAIN_KEYS:
            if config.pipeline != "plain" and values.get(name) is not None:
                raise InputError(
                    f"recipe key `{name}` must go with pipeline 'plain', got {config.pipeline!r}"
                )
        return config

    @model_validator(mode="before")
    @classmethod
    def _take_defaults_of_the_scenario(cls, values: Any) -> Any:  # noqa: ANN401
        if not isinstance(values, Mapping) or not isinstance(values.get("scenario"), str):
            return values
        return {**SCENARIO_DEFAULTS.get(values["scenario"], {}), **values}

    @model_serializer(mode="wrap")
    def _leave_out_what_has_no_effect(
        self, handler: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        # A recipe says nothing that has no effect, and one of a scenario keeps its digest when
        # another scenario gets a key.
        unused = {*_keys_of_others(self.scenario), *(["scenario"] * (self.scenario == "class"))}
        unused.update(["pipeline"] if self.pipeline == "plain" else PLAIN_KEYS)
        optional = ("protocol", "validation", "fixed_views")
        unused.update(name for name in optional if getattr(self, name) is None)
        unused.update(["task_free", *TASK_FREE_KEYS] if self.task_free is None else [])
        unused.update(name for name in ("plugins", "compile") if not getattr(self, name))
        return {name: value for name, value in handler(self).items() if name not in unused}

    @property
    def source(self) -> str:
        """Name or path of where the images come from."""
        return self.data or self.stream

    def identified(self) -> Self:
        """Returns the recipe with the digests of the files that its names lead to.

        So a changed file is another recipe, hence another run.

        Raises:
            InputError: If the recipe names a digest that its file no longer has.
        """
        found = source_digests(
            self.strategy, self.source, self.backbone, self.options, self.task_free
        )
        for name, digest in self.plugins.items():
            if found.get(name) != digest:
                raise InputError(
                    f"plugin {name!r} must be as the recipe knows it, SHA-256 {digest[:8]}, got "
                    f"{found.get(name, 'no file')[:8]}; without the recipe's key `plugins` the "
                    "file runs as it is"
                )
        return self.model_copy(update={"plugins": found})


def _keys_of_others(scenario: str) -> list[str]:
    own = SCENARIO_KEYS[scenario]
    return [name for keys in SCENARIO_KEYS.values() for name in keys if name not in own]


def _refuse_others(values: Mapping[str, object], scenario: str) -> None:
    for name in _keys_of_others(scenario):
        if values.get(name) is not None:
            owner, *others = (each for each, keys in SCENARIO_KEYS.items() if name in keys)
            also = f" (or {', '.join(map(repr, others))})" if others else ""
            raise InputError(
                f"recipe key `{name}` must go with scenario {owner!r}, got {scenario!r}{also}"
            )


def _refuse_task_free(values: Mapping[str, object]) -> None:
    for name in TASK_FREE_KEYS:
        if values.get(name) is not None:
            raise InputError(
                f"recipe key `{name}` must go with key `task_free`, got {values[name]!r} alone"
            )


def _with_scenario(values: Mapping[str, object]) -> dict[str, object]:
    # `digits-shift` is short for the stream `digits` with the scenario `shift`.
    stream = values.get("stream")
    if not isinstance(stream, str) or not stream.endswith(SHIFT_SUFFIX):
        return dict(values)
    scenario = values.get("scenario", "shift")
    if scenario != "shift":
        raise InputError(f"scenario of stream {stream!r} must be 'shift', got {scenario!r}")
    return {**values, "stream": stream.removesuffix(SHIFT_SUFFIX), "scenario": scenario}


def read_recipe(path: Path) -> dict[str, Any]:
    """Reads a recipe from a TOML file.

    Raises:
        InputError: If the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no TOML
        raise InputError(
            f"recipe {str(path)!r} must be a readable TOML file, got: {error}"
        ) from error
