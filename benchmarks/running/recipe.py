"""The recipe of a run: everything that decides its result, validated in one place.

The command's options, the keys of a TOML file (`--recipe`) and the `config` in `run.json` are the
same names, and flat; `recipe_parts` holds those that only some recipes have. One recipe is one run:
one strategy, one stream, one seed. What is said of a key here and there, the heading it stands
under (`Group`) too, is all that is said: the options of the command, the reference page and a
sweep's axes are made from it (`recipe_keys`).
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from cl_adapters.benchmarks.data.reading import ReadOptions, TestSet
from cl_adapters.benchmarks.running.earlier_options import renamed
from cl_adapters.benchmarks.running.recipe_groups import Group
from cl_adapters.benchmarks.running.recipe_nesting import (
    SHIFT_SUFFIX,
    flattened,
    in_one_sentence,
    nested,
)
from cl_adapters.benchmarks.running.recipe_parts import (
    NOT_CONTINUED,
    PART_KEYS,
    PARTS,
    AnyPixels,
    AnyScenario,
    ClassIncremental,
    Continued,
    PlainPixels,
    TaskFree,
    read_options_of,
)
from cl_adapters.benchmarks.streams.class_groups import groups_text
from cl_adapters.benchmarks.streams.class_names import order_text
from cl_adapters.errors import InputError, refuse_truth, unknown_name
from cl_adapters.paths import read_text
from cl_adapters.plugins.digests import source_digests
from cl_adapters.records.upgrade import upgrade_config
from cl_adapters.strategies import STRATEGY_NAMES
from cl_adapters.vit.names import EMBEDDED

__all__ = ["RECIPE_KEYS", "SHIFT_SUFFIX", "RunConfig", "read_recipe"]

# Keys that a recipe leaves out where they are empty: it says nothing that has no effect.
_OPTIONAL: Final = (
    "protocol", "validation", "class_depth", "domain_folders", "image_column", "label_column",
    "max_megapixels", "test_set", "max_classes", "max_images_per_class", "experiences",
    "fixed_views", "plugins", "compile", "continued", "emoe",
)  # fmt: skip


class RunConfig(BaseModel):
    """The recipe of one run; see each field's description.

    Every key is an attribute, those of a part too (`config.increment`); a key that the recipe's
    scenario, pixels or boundaries do not have is None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    strategy: Annotated[str, Group.WHAT] = Field(
        description="name of a strategy; on the command line several, separated by commas"
    )
    stream: Annotated[str, Group.DATA] = Field(
        default="digits", description="built-in source; NAME-shift adds scenario 'shift'"
    )
    data: Annotated[str | None, Group.DATA] = Field(
        default=None,
        description="image folder, parquet or csv file; replaces stream; several, separated by "
        "commas, with scenario datasets",
    )
    class_depth: Annotated[int | None, Group.DATA] = Field(
        default=None,
        ge=1,
        le=8,
        description="how many folders down the classes of an image folder lie; 2 below "
        "super-classes; by default 1, where class folders hold images themselves",
    )
    domain_folders: Annotated[bool | None, Group.DATA] = Field(
        default=None,
        description="the classes of an image folder lie in folders that are domains, as in "
        "2026-01/<class>/; scenario domain takes one an experience",
    )
    image_column: Annotated[str | None, Group.DATA] = Field(
        default=None, description="column of a table with images or their files; by default found"
    )
    label_column: Annotated[str | None, Group.DATA] = Field(
        default=None, description="column of a table with the classes; by default found"
    )
    max_megapixels: Annotated[float | None, Group.DATA] = Field(
        default=None, gt=0, description="largest image that is decoded; by default 89"
    )
    test_set: Annotated[TestSet | None, Group.DATA] = Field(
        default=None,
        description="set of the data to evaluate on where they have both, test or validation; by "
        "default test",
    )
    validation: Annotated[float | None, Group.DATA] = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of each class's train images to evaluate on instead of the test images",
    )
    max_classes: Annotated[int | None, Group.DATA] = Field(
        default=None,
        ge=1,
        lt=2**32,
        description="for a quick look: most classes, the first of the data; marked in reports",
    )
    max_images_per_class: Annotated[int | None, Group.DATA] = Field(
        default=None,
        ge=1,
        lt=2**32,
        description="for a quick look: most images of each class, in train and in test; marked in "
        "reports (`max_images` is something else: of a task-free segment)",
    )
    scenario_keys: AnyScenario = Field(
        default=ClassIncremental(), description="the scenario's keys"
    )
    boundaries: TaskFree | None = Field(default=None, description="the keys of a task-free stream")
    class_order: Annotated[str, Group.STREAM] = Field(
        default="seeded",
        description="order of the classes: natural, seeded, numpy1993, numpy1995, positions: "
        "3,0,1,2, names: cat,dog, or a file with a name a line: @order.txt",
    )
    seed: Annotated[int, Group.WHAT] = Field(
        default=0, ge=0, lt=2**32, description="decides class order, weights and order of images"
    )
    backbone: Annotated[str, Group.PIXELS] = Field(
        default=EMBEDDED, description="architecture.tag of timm, or the embedded one"
    )
    weights: Annotated[str | None, Group.PIXELS] = Field(
        default=None, description="weights file (.safetensors, .npz, .pt) or 'random'"
    )
    image_size: Annotated[int | None, Group.PIXELS] = Field(
        default=None, ge=1, le=16384, description="side of the input in pixels"
    )
    emoe: Annotated[str | None, Group.PIXELS] = Field(
        default=None,
        description="experts that the backbone's MLPs choose among: how many, how many a token "
        "chooses, and blocks, such as 24,4,8,10",
    )
    input_range: Annotated[str, Group.PIXELS] = Field(
        default="timm", description="what pixels become: timm, pilot_01 or imagenet"
    )
    pixels: AnyPixels = Field(default=PlainPixels(), description="the keys of the pixel pipeline")
    fixed_views: Annotated[int | None, Group.PIXELS] = Field(
        default=None,
        ge=1,
        lt=2**32,
        description="augmented views of an image in all, so that frozen parts meet them again; "
        "by default a new one at each use",
    )
    precision: Annotated[Literal["fp32", "bf16"], Group.COMPUTING] = Field(
        default="fp32", description="number format of forward passes"
    )
    compile: Annotated[bool, Group.COMPUTING] = Field(
        default=False,
        description="let torch.compile fuse the blocks: the first use waits, the last digits "
        "change",
    )
    device: Annotated[str, Group.COMPUTING] = Field(
        default="cpu", description="where to compute: cpu, cuda, cuda:1, mps or auto"
    )
    threads: Annotated[int | None, Group.COMPUTING] = Field(
        default=None, ge=1, le=1024, description="CPU threads; by default torch's choice"
    )
    fidelity: Annotated[Literal["default", "official"], Group.WHAT] = Field(
        default="default",
        description="what the method computes; official: with the quirks of the authors' code",
    )
    protocol: Annotated[str | None, Group.WHAT] = Field(
        default=None,
        description="published setting that fixes other keys, with data; see `list protocols`",
    )
    options: Annotated[dict[str, Any], Group.WHAT] = Field(
        default_factory=dict, description="options of the strategy"
    )
    continued: Annotated[list[Continued], Group.DATA] = Field(
        default_factory=list,
        description="parts learned after the rest, a table each with `data`, `increment`, "
        "`old_test` and how to read it; what `cl-adapters continue` adds",
    )
    plugins: Annotated[dict[str, str], Group.WHAT] = Field(
        default_factory=dict, description="SHA-256 of each file that a name here leads to"
    )

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Returns the recipe of a mapping.

        Raises:
            InputError: If a key is unknown or a value breaks its rule.
        """
        for name in values:
            if name not in RECIPE_KEYS:
                raise unknown_name("recipe key", name, RECIPE_KEYS)
        for fields in (
            cls.model_fields,
            *(each.model_fields for kinds in PARTS.values() for each in kinds),
        ):
            refuse_truth("recipe key ", values, fields)
        try:
            return cls.model_validate(_with_names(values))
        except ValidationError as error:
            raise InputError(in_one_sentence(error)) from error

    @model_validator(mode="before")
    @classmethod
    def _put_keys_into_their_parts(cls, values: Any) -> Any:  # noqa: ANN401
        if isinstance(values, Mapping):
            _refuse_empty(values)
        if not isinstance(values, Mapping) or not values.keys().isdisjoint(PART_KEYS):
            return values
        found = nested(values)
        strategy, options = found.get("strategy"), found.get("options")
        if isinstance(strategy, str) and isinstance(options, dict):
            found["options"] = renamed(strategy, options)
        return found

    @model_validator(mode="after")
    def _refuse_what_cannot_go_on(self) -> Self:
        said = {
            "protocol": self.protocol,
            "task_free": self.task_free,
            self.scenario: self.scenario,
        }
        for name, value in said.items() if self.continued else ():
            if value is not None and name in NOT_CONTINUED:
                key = "scenario" if name == value else name
                raise InputError(
                    f"a stream with {key} {value!r} must not be continued: {NOT_CONTINUED[name]}"
                )
        return self

    @model_serializer(mode="wrap")
    def _write_flat(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        flat = upgrade_config(flattened(handler(self)))
        if flat.get("experiences"):
            flat = {name: value for name, value in flat.items() if name not in _SAID_BY_NAMES}
        flat["continued"] = [_said(part) for part in flat["continued"]]
        if flat.get("datasets"):
            flat["datasets"] = [_said(each) for each in flat["datasets"]]
            del flat["stream"]
        # A spoken "no" is not the same as nothing said, and reads again as it was given.
        return {
            name: value
            for name, value in flat.items()
            if value or name not in _OPTIONAL or (value is False and name in _SPOKEN)
        }

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the keys of the parts
        if name not in RECIPE_KEYS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        parts = (self.scenario_keys, self.boundaries, self.pixels)
        return next((vars(part)[name] for part in parts if part and name in vars(part)), None)

    @property
    def source(self) -> str:
        """Name or path of where the images come from; of several data sets, their names."""
        return ",".join(each.name for each in self.datasets or ()) or self.data or self.stream

    @property
    def sources(self) -> list[str]:
        """Name or path of each place where images come from, but for continued parts."""
        return [each.data for each in self.datasets or ()] or [self.source]

    @property
    def images(self) -> tuple[object, ...]:
        """What decides which images are opened: equal for recipes that can share them."""
        part = self.max_classes, self.max_images_per_class
        kept = (self.source, self.protocol, self.validation, self.read_options, part)
        return (*kept, *(self.datasets or ()))

    @property
    def read_options(self) -> ReadOptions:
        """How the images are to be read."""
        return read_options_of(self)

    def identified(self) -> Self:
        """Returns the recipe with the digests of the files that its names lead to.

        So a changed file is another recipe, hence another run.

        Raises:
            InputError: If the recipe names a digest that its file no longer has.
        """
        built_in = STRATEGY_NAMES.is_built_in(self.strategy)
        found = source_digests(
            None if built_in else self.strategy,
            *self.sources,
            self.backbone,
            self.options,
            self.task_free,
        )
        for name, digest in self.plugins.items():
            if found.get(name) != digest:
                raise InputError(
                    f"plugin {name!r} must be as the recipe knows it, SHA-256 {digest[:8]}, got "
                    f"{found.get(name, 'no file')[:8]}; without the recipe's key `plugins` the "
                    "file runs as it is"
                )
        return self.model_copy(update={"plugins": found})


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


# Optional keys that may say "no".
_SPOKEN: Final = ("domain_folders",)
# What experiences with names say themselves.
_SAID_BY_NAMES: Final = ("increment", "first", "class_order")


def _with_names(values: Mapping[str, object]) -> dict[str, object]:
    # A recipe holds the names of classes, whatever becomes of a file that names them.
    found = dict(values)
    order, groups = values.get("class_order"), values.get("experiences")
    if isinstance(order, str):
        found["class_order"] = order_text(order)
    if groups is not None:
        for name in _SAID_BY_NAMES:
            if values.get(name) is not None:
                raise InputError(
                    f"recipe key `{name}` must not go with key `experiences`, which says it "
                    f"itself, got {values[name]!r}"
                )
        found["experiences"] = groups_text(groups)
    return found


def _refuse_empty(values: Mapping[str, Any]) -> None:
    # What a shell makes of a variable that is not set: no data would be the built-in digits.
    for name, value in values.items():
        if value == "":
            raise InputError(f"recipe key `{name}` must not be empty text, got ''")


# Every key that a recipe may have, those of the parts at their places.
RECIPE_KEYS: Final = tuple(
    key for name in RunConfig.model_fields for key in PART_KEYS.get(name, (name,))
)


def read_recipe(path: Path) -> dict[str, Any]:
    """Reads a recipe from a TOML file.

    Raises:
        InputError: If the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no TOML
        raise InputError(
            f"recipe {str(path)!r} must be a readable TOML file, got: {error}"
        ) from error
