"""What each kind of event holds: its fields with type, unit and meaning.

Every writer makes these models and every reader gets them, so this is the one place that says what
a line of `events.jsonl` may hold; the page of the docs is made from it (`records.schema`). Numbers
count from 0: experiences, blocks, windows, adapters. Each kind may have further keys, which a newer
version or a plug-in writes: they are kept and written again.

A number may be NaN here, of a run that diverged. Who draws or adds them up looks first.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "EVENT_KINDS",
    "Active",
    "Cache",
    "Directions",
    "Domain",
    "Drift",
    "Evaluation",
    "Event",
    "Growth",
    "Memory",
    "OtherEvent",
    "Parameters",
    "Phase",
    "Prompts",
    "Reused",
    "Ridge",
    "Router",
    "Scan",
    "Segment",
    "Statistics",
    "Votes",
]


def _unit(name: str) -> Any:  # noqa: ANN401 - what `Field` returns stands in an annotation
    return Field(ge=0, json_schema_extra={"unit": name})


Count = Annotated[int, Field(ge=0)]
Images = Annotated[int, _unit("images")]
Numbers = Annotated[int, _unit("parameters")]
Bytes = Annotated[int, _unit("bytes")]
Rows = Annotated[int, _unit("rows")]
Seconds = Annotated[float, Field(allow_inf_nan=False), _unit("seconds")]
Counts = Annotated[list[Count], Field(min_length=1)]
ImageCounts = Annotated[list[Images], Field(min_length=1)]


class Event(BaseModel):
    """One line of `events.jsonl`."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="allow", validate_by_name=True, validate_by_alias=True
    )

    event: str = Field(description="kind of event")
    experience: Count = Field(description="index of the experience it belongs to")
    seconds: Seconds = Field(description="duration of what it describes; 0 for a mere fact")

    @property
    def values(self) -> dict[str, Any]:
        """Every key that this event has beside `event`, `experience` and `seconds`."""
        given = self.model_dump(by_alias=True, exclude_unset=True)
        return {name: value for name, value in given.items() if name not in Event.model_fields}

    def as_line(self) -> dict[str, Any]:
        """Returns the keys and values that stand in the file."""
        head = {"event": self.event, "experience": self.experience}
        return {**head, "seconds": round(self.seconds, 6), **self.values}

    def of_experience(self, experience: int) -> Self:
        """Returns the same event, of another experience."""
        return self.model_copy(update={"experience": experience})


class OtherEvent(Event):
    """A kind that this version does not know: a plug-in's or a later version's."""


class Phase(Event):
    """A part of the training of an experience."""

    event: Literal["phase"] = "phase"
    name: str = Field("train", description="which part, such as `train`, `scan` or `alignment`")
    images: Images = Field(0, description="images that went through it, once an epoch each")
    losses: list[float] = Field(
        default_factory=list, description="mean loss of each epoch; absent where there is no loss"
    )


class Evaluation(Event):
    """The test images after an experience."""

    event: Literal["evaluation"] = "evaluation"
    images: Images = Field(0, description="test images")
    passes: float | None = Field(None, ge=0, description="backbone passes an image, on average")


class Parameters(Event):
    """How large the model is after an experience."""

    event: Literal["parameters"] = "parameters"
    trainable: Numbers = Field(0, description="those that could be trained now")
    added: Numbers = Field(description="numbers beside the frozen backbone, statistics included")
    total: Numbers = Field(0, description="`added` and the backbone")


class Memory(Event):
    """The most memory that the process, or its GPU, has taken so far."""

    event: Literal["memory"] = "memory"
    peak_bytes: Bytes = Field(description="resident set of the process, or allocated on the GPU")


class Cache(Event):
    """What the feature cache answered in an experience."""

    event: Literal["cache"] = "cache"
    mode: str = Field(
        description="`off`, `exact` (plain images), or the number of fixed views of an image"
    )
    read: Rows = Field(description="answered without computing")
    computed: Rows = Field(description="computed, and kept")
    earlier_hits: Rows = Field(0, description="those of `read` that an earlier run had computed")


class Domain(Event):
    """The truth about an experience of a stream whose domains change."""

    event: Literal["domain"] = "domain"
    domain: str = Field(description="name of the domain of its images")
    changed: bool = Field(description="whether it differs from that of the experience before")
    seen_before: bool = Field(description="whether an earlier experience had it")
    severity: float = Field(1.0, description="strength of the shift, from 0 to 1")
    share: float = Field(1.0, description="share of the images that are in the domain; absent: 1")


class Segment(Event):
    """A part of a task-free stream, from one announced boundary to the next."""

    event: Literal["segment"] = "segment"
    start: Images = Field(description="images of the stream before it")
    images: Annotated[int, Field(ge=1, json_schema_extra={"unit": "images"})] = Field(
        description="images in it"
    )
    announced: Images | None = Field(
        description="images that had come when it was announced; null for the first"
    )
    score: float | None = Field(
        description="of the first strange window; null where its length forced it, and at first"
    )
    threshold: float | None = Field(None, description="what the score was above")
    delay: int | None = Field(
        None, description="images from the last true change to the announcement"
    )
    changes: list[int] = Field(description="where true changes lie in it, images before each")
    origins: list[list[int]] = Field(
        default_factory=list, description="[true experience, images of it], each that has some"
    )


class Scan(Event):
    """SEMA, MOS, LAE: one block's, or, as block 0, the network's look at one window of images."""

    event: Literal["scan"] = "scan"
    block: Count = Field(description="the block")
    window: Count = Field(description="number of the window in this pass over the data")
    images: Images = Field(description="images in the window")
    scores: list[float] = Field(min_length=1, description="score of each adapter's detector")
    thresholds: list[float] = Field(description="threshold of each adapter's detector")
    adapter: Count = Field(description="the adapter with the smallest score above threshold")
    score: float | None = Field(None, description="its score")
    threshold: float | None = Field(None, description="its threshold")
    fired: bool = Field(description="whether the detectors of all adapters fired")
    grown: bool = Field(description="whether the block then got an adapter")
    reason: str = Field("", description="why, or why not")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.thresholds) != len(self.scores) or self.adapter >= len(self.scores):
            raise ValueError("scores, thresholds and adapter must name the same adapters")
        return self


class Growth(Event):
    """SEMA, MOS, LAE: a block got an adapter, or the network, as block 0, a set of them."""

    event: Literal["growth"] = "growth"
    block: Count = Field(description="the block")
    adapters: Count = Field(description="adapters that it has now")
    parameters: Numbers = Field(description="what the new one adds, its detector included")


class Active(Event):
    """SEMA, MOS, LAE: a block's adapter, or, as block 0, the set that an experience belongs to."""

    event: Literal["active"] = "active"
    block: Count = Field(description="the block")
    adapter: Count = Field(description="the adapter")
    changed: bool = Field(description="whether the detector of the one before fired at any window")


class Router(Event):
    """SEMA: how a block's router mixed its adapters, or, as block 0, which paths images took."""

    event: Literal["router"] = "router"
    block: Count = Field(description="the block")
    weights: list[list[float]] = Field(
        min_length=1,
        description="mean weight of each adapter, from 0 to 1, a row each test experience",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.weights[0] or len({len(row) for row in self.weights}) > 1:
            raise ValueError("weights must have one row an experience and one column an adapter")
        return self


class Votes(Event):
    """LAE: where the online and the offline expert differ; one number a test experience each."""

    event: Literal["votes"] = "votes"
    experiences: Counts = Field(description="the test experiences")
    images: ImageCounts = Field(description="their images")
    differ: ImageCounts = Field(description="those on which the experts differ")
    online_right: ImageCounts = Field(description="of these, the online expert is right")
    offline_right: ImageCounts = Field(description="of these, the offline expert is right")
    vote_right: ImageCounts = Field(description="of these, their vote is right")

    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = (self.images, self.differ, self.online_right, self.offline_right, self.vote_right)
        if any(len(part) != len(self.experiences) for part in parts):
            raise ValueError("votes must give one number a test experience under each key")
        columns = zip(*parts, strict=True)
        if any(not on + off <= differ <= images for images, differ, on, off, _ in columns):
            raise ValueError("no more images must be right than differ, and differ than there are")
        return self


class Drift(Event):
    """MOS: how far its frozen adapters lie from each other."""

    event: Literal["drift"] = "drift"
    distances: list[list[float | None]] = Field(
        description="`[i][j]`: distance of experience j's set from i's over the size of i's; "
        "null: no number"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(len(row) != len(self.distances) for row in self.distances):
            raise ValueError("distances must be a square, a row and a column an adapter")
        return self


class Statistics(Event):
    """A class whose statistics had to be replaced."""

    event: Literal["statistics"] = "statistics"
    class_: Count = Field(alias="class", description="the class, by position in the class order")
    rule: str = Field(description="what stands in for its own")


class Ridge(Event):
    """The strength that a ridge regression chose for itself."""

    event: Literal["ridge"] = "ridge"
    strength: float = Field(description="what is added to the diagonal")


class Directions(Event):
    """What of the inputs of each block later updates have to leave alone."""

    event: Literal["directions"] = "directions"
    threshold: float = Field(description="share of the inputs' energy that is kept from change")
    experiences: Count = Field(description="experiences of the stream, as they were counted on")
    used: Counts = Field(description="directions that are kept from change, by block")


class Prompts(Event):
    """How a prompt method reads an image and chooses its prompts."""

    event: Literal["prompts"] = "prompts"
    reads: str = Field(description="what of the network's output is the query: `class token`, ...")
    by_batch: str = Field(
        "", description="options under which an answer depends on its batch; empty: on no other"
    )
    batch_images: Images = Field(0, description="images in a test batch")


class Reused(Event):
    """The training of this experience was taken from another run."""

    event: Literal["reused"] = "reused"
    run: str = Field(description="name of the other run directory, which lies beside")


EVENT_KINDS: Final[dict[str, type[Event]]] = {
    kind.model_fields["event"].default: kind
    for kind in (
        Phase, Evaluation, Parameters, Memory, Cache, Domain, Segment, Scan, Growth, Active,
        Router, Votes, Drift, Statistics, Ridge, Directions, Prompts, Reused,
    )
}  # fmt: skip
