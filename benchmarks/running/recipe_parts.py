"""The options of a recipe that only some recipes have: a model a scenario, one of each other part.

A recipe is flat where it is written; here each model holds the keys that belong together, with
their types, rules, defaults and help. A key of another scenario is refused, not ignored.
"""

from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    field_validator,
    model_validator,
)

from cl_adapters.benchmarks.data.reading import ReadOptions, TestSet, pixels_of
from cl_adapters.benchmarks.running.recipe_groups import Group
from cl_adapters.benchmarks.streams.class_names import order_text
from cl_adapters.benchmarks.streams.dataset_names import check_names, name_of
from cl_adapters.benchmarks.streams.kinds import KIND_NAMES
from cl_adapters.errors import InputError, refuse_truth

__all__ = [
    "CHOICES",
    "NOT_CONTINUED",
    "NO_OLD_TEST",
    "PARTS",
    "PART_KEYS",
    "PIXELS",
    "SCENARIOS",
    "AnyPixels",
    "AnyScenario",
    "Blurry",
    "ByClass",
    "ByGroups",
    "ClassDomain",
    "ClassIncremental",
    "Continued",
    "DataSet",
    "Datasets",
    "DomainIncremental",
    "LongTailed",
    "Part",
    "PlainPixels",
    "PublishedPixels",
    "Repetition",
    "Shift",
    "TaskFree",
    "read_options_of",
]


NO_OLD_TEST: Final = "none"  # what `old_test` says where no old test images are left


class Part(BaseModel):
    """Keys that belong together."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    group: ClassVar[Group] = Group.STREAM  # of all its keys


def read_options_of(keys: Any) -> ReadOptions:  # noqa: ANN401 - a recipe or a part of one
    """Returns how images are to be read, as the keys of a recipe or of a continued part say it."""
    return ReadOptions(
        class_depth=keys.class_depth,
        domain_folders=keys.domain_folders or None,
        image_column=keys.image_column,
        label_column=keys.label_column,
        max_pixels=pixels_of(keys.max_megapixels),
        test_set=keys.test_set,
    )


class _HowToRead(Part):
    """The keys that say how images are read."""

    group = Group.DATA
    class_depth: int | None = Field(default=None, ge=1, le=8)
    domain_folders: bool | None = None
    image_column: str | None = None
    label_column: str | None = None
    max_megapixels: float | None = Field(default=None, gt=0)
    test_set: TestSet | None = None

    @property
    def read_options(self) -> ReadOptions:
        """How the images are to be read."""
        return read_options_of(self)


class DataSet(_HowToRead):
    """One of several data sets of a stream."""

    data: str = Field(min_length=1, description="image folder, parquet or csv file, or a stream")
    name: str = Field(default="", description="what it is called; by default as its data")
    domain: str | None = Field(
        default=None, min_length=1, description="the one domain of the data that is taken"
    )
    increment: int | None = Field(default=None, ge=1)
    num_experiences: int | None = Field(default=None, ge=1)
    class_order: str | None = Field(default=None, min_length=1)
    max_classes: int | None = Field(default=None, ge=1, lt=2**32)
    max_images_per_class: int | None = Field(default=None, ge=1, lt=2**32)

    @model_validator(mode="before")
    @classmethod
    def _say_its_names(cls, values: Any) -> Any:  # noqa: ANN401
        if not isinstance(values, dict) or not isinstance(values.get("data"), str):
            return values
        refuse_truth("recipe key ", values, cls.model_fields)
        order = values.get("class_order")
        named = {"class_order": order_text(order)} if isinstance(order, str) else {}
        return {**values, "name": values.get("name") or name_of(values["data"]), **named}


class ByClass(Part):
    """Experiences of new classes, whatever else a scenario does with them."""

    increment: int = Field(default=2, ge=1, description="classes an experience")
    first: int | None = Field(
        default=None, ge=0, description="classes of the first experience (Bm-IncN)"
    )


class ByGroups(ByClass):
    """Experiences of new classes, which may be named."""

    experiences: str | None = Field(
        default=None,
        description="TOML file with the classes of each experience, in place of a number and a "
        'class order: pets = ["cat", "dog"]',
    )


class _ByDomain(Part):
    domain_order: str = Field(
        default="natural",
        description="order of the domains: natural (by name), seeded, or names: photo,sketch",
    )


class ClassIncremental(ByGroups):
    """New classes in each experience; the default."""

    scenario: Literal["class"] = "class"


class DomainIncremental(_ByDomain):
    """One value of the data's column `domain` an experience."""

    scenario: Literal["domain"] = "domain"


class Shift(Part):
    """All classes, and pixels that change at known points."""

    scenario: Literal["shift"] = "shift"
    shifts: str = Field(
        default=",".join(KIND_NAMES), description="kinds of change that make the new domains"
    )
    severity: float = Field(default=1.0, description="how far the changes go, from 0 to 1")
    transition: Literal["abrupt", "gradual"] = Field(
        default="abrupt", description="gradual: the share of changed images grows with each stay"
    )
    num_experiences: int = Field(default=14, description="number of experiences")
    changes: int = Field(default=6, description="experiences with another domain than the last")
    recurring: int = Field(default=2, description="changes that return to a domain seen before")
    test_images: int | None = Field(
        default=None, description="test images an experience; by default all"
    )


class Blurry(ByGroups):
    """New classes, some of whose images come at another time."""

    scenario: Literal["blurry"] = "blurry"
    blur: float = Field(
        default=0.1, description="share of each class's train images that leak, in [0, 1)"
    )


class LongTailed(ByGroups):
    """New classes with ever fewer images."""

    scenario: Literal["long_tailed"] = "long_tailed"
    imbalance: float = Field(
        default=10.0, description="train images of the largest class over those of the smallest"
    )
    tail: Literal["ordered", "shuffled"] = Field(
        default="ordered", description="classes get smaller in class order, or by chance"
    )
    head_images: int | None = Field(
        default=None,
        description="train images of the largest class; by default as many as the source's "
        "smallest class has",
    )


class Repetition(Part):
    """New classes, and old ones that return."""

    scenario: Literal["repetition"] = "repetition"
    num_experiences: int = Field(default=5, description="number of experiences")
    repeat: float = Field(
        default=0.2, description="probability that a class returns in a later experience"
    )


class ClassDomain(ByClass, _ByDomain):
    """One group of classes in one domain an experience."""

    scenario: Literal["class_domain"] = "class_domain"


class Datasets(Part):
    """Several data sets: one after the other, in turns, or coming back with other classes."""

    scenario: Literal["datasets"] = "datasets"
    datasets: list[DataSet] = Field(
        description="the data sets, a table each with `data`, `name`, `domain`, `increment`, "
        "`num_experiences`, `class_order`, `max_classes`, `max_images_per_class` and how to read "
        "it; on the command line --data a.parquet,signs=b/"
    )
    dataset_order: str = Field(
        default="sequential",
        description="which data set each experience is of: sequential, interleaved, or names, each "
        "of which brings the next classes of its data set: objects,signs,objects",
    )
    increment: int | None = Field(
        default=None,
        ge=1,
        description="of a data set that says none itself; by default all its classes, or shares of "
        "them alike where it has several experiences",
    )

    @field_validator("datasets")
    @classmethod
    def _tell_them_apart(cls, values: list[DataSet]) -> list[DataSet]:
        check_names([each.name for each in values])
        return values


# The first scenario with a key is the one that messages name first.
SCENARIOS: Final[dict[str, type[Part]]] = {
    "class": ClassIncremental,
    "domain": DomainIncremental,
    "shift": Shift,
    "blurry": Blurry,
    "long_tailed": LongTailed,
    "repetition": Repetition,
    "class_domain": ClassDomain,
    "datasets": Datasets,
}
AnyScenario = Annotated[
    ClassIncremental
    | DomainIncremental
    | Shift
    | Blurry
    | LongTailed
    | Repetition
    | ClassDomain
    | Datasets,
    Discriminator("scenario"),
]


class TaskFree(Part):
    """No boundaries are told: a detector has to announce where experiences begin."""

    group = Group.TASK_FREE
    task_free: str = Field(
        description="name of a detector that has to announce where experiences begin; by default "
        "boundaries are told; see `list detectors`"
    )
    reference: int = Field(
        default=96, ge=20, description="images of a segment that its detector knows"
    )
    window: int = Field(default=32, ge=20, description="images that the detector judges together")
    patience: int = Field(
        default=1, ge=1, description="strange windows in a row that make a boundary"
    )
    false_alarm: float = Field(
        default=0.002, gt=0, lt=1, description="share of known windows that may fire"
    )
    max_images: int | None = Field(
        default=None, ge=1, description="most images of a segment; by default any number"
    )


class Continued(_HowToRead):
    """What is learned after the rest of a recipe: one part of a stream that goes on."""

    data: str = Field(min_length=1, description="image folder, parquet or csv file")
    increment: int | None = Field(
        default=None, ge=1, description="new classes an experience; by default all at once"
    )
    domain_folders: bool | None = Field(
        default=None, description="the folder holds folders of classes, one an experience"
    )
    old_test: str | None = Field(
        default=None,
        min_length=1,
        description="class folders with test images of what was learned before, in place of those "
        f"of its data; {NO_OLD_TEST}: there are none any more",
    )

    @model_validator(mode="after")
    def _refuse_two_ways_to_cut(self) -> Self:
        if self.increment is not None and self.domain_folders:
            raise InputError(
                "recipe key `increment` of a part must not go with its key `domain_folders`, whose "
                f"folders are the experiences, got {self.increment}"
            )
        return self


class _Pixels(Part):
    group = Group.PIXELS


class PlainPixels(_Pixels):
    """From image to input by the keys of the recipe."""

    pipeline: Literal["plain"] = "plain"
    augment: Literal["none", "crop", "crop_flip"] = Field(
        default="none", description="augmentation in training"
    )
    crop_scale: float = Field(
        default=0.5, gt=0, le=1, description="smallest share of the area that a random crop keeps"
    )


class PublishedPixels(_Pixels):
    """From image to input as the authors' code does, which settles everything."""

    pipeline: Literal["pilot", "lae", "ranpac", "inflora"]


PIXELS: Final[dict[str, type[Part]]] = {
    "plain": PlainPixels,
    "pilot": PublishedPixels,
    "lae": PublishedPixels,
    "ranpac": PublishedPixels,
    "inflora": PublishedPixels,
}
AnyPixels = Annotated[PlainPixels | PublishedPixels, Discriminator("pipeline")]
# What the choice itself means: each model above holds one of its values.
CHOICES: Final[dict[str, str]] = {
    "scenario": "what an experience brings: new classes, a domain, a shift; classes that leak, "
    "have fewer images each or return; a group of classes in a domain; classes of one data set of "
    "several",
    "pipeline": "from image to input: by the keys of the recipe, or as PILOT, LAE or, on CIFAR, "
    "RanPAC or InfLoRA do",
}

# What a stream cannot be that goes on after its end, and why.
NOT_CONTINUED: Final[dict[str, str]] = {
    "protocol": "a published setting says all of its experiences",
    "task_free": "its segments were announced in one flow of all images",
    "shift": "its changes of pixels were dealt out over a number of experiences",
    "blurry": "its images leak into each other's experiences",
    "repetition": "its classes return by chance in a number of experiences",
    "datasets": "its data sets and their order were said as a whole, and name its classes",
}

# The fields of a recipe that hold keys instead of being one, and the models that each may hold.
PARTS: Final[dict[str, tuple[type[Part], ...]]] = {
    "scenario_keys": tuple(SCENARIOS.values()),
    "boundaries": (TaskFree,),
    "pixels": (PlainPixels, PublishedPixels),
}
PART_KEYS: Final = {
    part: tuple(
        sorted(
            dict.fromkeys(name for kind in kinds for name in kind.model_fields),
            key=lambda name: name not in CHOICES,  # the choice stands before what it brings
        )
    )
    for part, kinds in PARTS.items()
}
