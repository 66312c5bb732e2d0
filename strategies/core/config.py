"""Options of strategies: validated, immutable, and part of the run record."""

from collections.abc import Mapping, Sequence
from typing import Final, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cl_adapters.errors import InputError, unknown_name
from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.heads.prototypes import PrototypeHead
from cl_adapters.heads.ridge import RidgeHead
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.registry import Peft, build_adapters, find_peft
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = [
    "AnyHeadConfig",
    "BlockPeftConfig",
    "ClosedHead",
    "ClosedHeadConfig",
    "PeftConfig",
    "StrategyConfig",
    "TrainedConfig",
    "TrainedHeadConfig",
]

ClosedHead = PrototypeHead | LinearDiscriminant | RidgeHead


class StrategyConfig(BaseModel):
    """Options that every strategy has.

    The defaults are what the paper describes, made to work; `official` gives what the authors' code
    computes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    batch_size: int = Field(default=24, ge=1, description="images in a training step")

    @classmethod
    def official(cls) -> Self:
        """Returns the options under which the strategy computes what its authors' code computes."""
        return cls()

    @property
    def evaluation_options(self) -> frozenset[str]:
        """Names of the options that have no part in training, however they are set."""
        return frozenset()

    def override(self, options: Mapping[str, object]) -> Self:
        """Returns a copy with some options changed; text is converted to the option's type.

        Raises:
            InputError: If an option is unknown or its value breaks a rule.
        """
        known = type(self).model_fields
        for name in options:
            if name not in known:
                raise unknown_name("option", name, known)
        try:
            return type(self).model_validate({**self.model_dump(), **options})
        except ValidationError as error:
            first = error.errors()[0]
            if not first["loc"]:  # a rule between options says itself which
                raise InputError(f"option {first['ctx']['error']}") from error
            place = ".".join(map(str, first["loc"]))
            cause = first.get("ctx", {}).get("error")
            if isinstance(cause, InputError):  # which says the value itself
                raise InputError(f"option `{place}`: {cause}") from error
            raise InputError(f"option `{place}`: {first['msg']}, got {first['input']!r}") from error


class TrainedConfig(StrategyConfig):
    """Options of a strategy that trains adapters by gradient descent."""

    epochs: int = Field(default=5, ge=1, description="passes over the images of an experience")
    drop_last: bool = Field(default=False, description="leave out an epoch's last, smaller batch")
    lr: float = Field(default=0.0028125, gt=0, description="constant learning rate of Adam")


# Classifiers as pieces, and how each comes about.
_TRAINED_HEADS: Final = ("linear", "cosine")
_CLOSED_HEADS: Final = ("prototype", "discriminant", "ridge")


def _fitting(head: str, fitting: Sequence[str], others: Sequence[str], reason: str) -> str:
    if head in others:
        raise InputError(f"`head` must be one of {', '.join(fitting)}, got {head!r}: {reason}")
    if head not in fitting:
        raise unknown_name("head", head, fitting)
    return head


class TrainedHeadConfig(BaseModel):
    """Which classifier is trained on the adapted features."""

    head: str = Field(default="linear", description="classifier: linear or cosine")
    head_scale: float = Field(default=10.0, gt=0, description="of the cosines of a cosine head")

    @field_validator("head")
    @classmethod
    def _know_head(cls, value: str) -> str:
        reason = (
            "it is set in closed form from features that stay as they are, and training changes "
            "them"
        )
        return _fitting(value, _TRAINED_HEADS, _CLOSED_HEADS, reason)

    def build_head(self, num_features: int, *, init_std: float | None = 0.001) -> ExperienceHeads:
        """Returns the classifier, without a class yet."""
        scale = self.head_scale if self.head == "cosine" else None
        return ExperienceHeads(num_features, init_std=init_std, cosine_scale=scale)


class ClosedHeadConfig(BaseModel):
    """Which classifier is set in closed form on features that stay as they are."""

    head: str = Field(
        default="prototype", description="classifier: prototype, discriminant or ridge"
    )
    ridge: float = Field(default=1.0, gt=0, description="strength of the ridge head")

    @field_validator("head")
    @classmethod
    def _know_head(cls, value: str) -> str:
        reason = "it is trained by gradient descent, and this method trains nothing"
        return _fitting(value, _CLOSED_HEADS, _TRAINED_HEADS, reason)

    def build_head(self, num_features: int, scale: float) -> ClosedHead:
        """Returns the classifier, without a class yet."""
        if self.head == "ridge":
            return RidgeHead(num_features, scale=scale)
        if self.head == "discriminant":
            return LinearDiscriminant(num_features, unit_length=True)
        return PrototypeHead(num_features, scale=scale)


class AnyHeadConfig(BaseModel):
    """Which classifier answers, of those that are trained and those that are set in closed form.

    For a method that trains features and then keeps them: while it trains, a trained head stands
    in for one in closed form.
    """

    head: str | None = Field(
        default=None,
        description="classifier: linear, cosine, prototype, discriminant or ridge; "
        "None: `classifier`",
    )
    head_scale: float = Field(default=10.0, gt=0, description="of the cosines of a head that has")
    ridge: float = Field(default=1.0, gt=0, description="strength of the ridge head")

    @field_validator("head")
    @classmethod
    def _know_head(cls, value: str | None) -> str | None:
        return value and _fitting(value, (*_TRAINED_HEADS, *_CLOSED_HEADS), (), "")

    def build_heads(
        self, head: str, num_features: int
    ) -> tuple[ExperienceHeads, ClosedHead | None]:
        """Returns the classifier that is trained, and the one that answers in its place if any."""
        if head in _TRAINED_HEADS:
            trained = TrainedHeadConfig(head=head, head_scale=self.head_scale)
            return trained.build_head(num_features, init_std=None), None
        closed = ClosedHeadConfig(head=head).build_head(num_features, self.head_scale)
        return TrainedHeadConfig().build_head(num_features, init_std=None), closed


class BlockPeftConfig(BaseModel):
    """Which PEFT module goes into every block."""

    peft: str = Field(
        default="parallel",
        description="kind of PEFT module: parallel, adapter, lora, prefix, or file.py:Name",
    )
    width: int | None = Field(
        default=None,
        ge=1,
        description="of a PEFT module; rank or length; None: its own, 16 of parallel",
    )

    @field_validator("peft")
    @classmethod
    def _know_pet(cls, value: str) -> str:
        find_peft(value)
        return value

    @property
    def chosen(self) -> tuple[Peft, int]:
        """The kind of PEFT module and its width, rank or length."""
        peft = find_peft(self.peft)
        return peft, peft.default_size if self.width is None else self.width


class PeftConfig(BaseModel):
    """Which PEFT module goes into which blocks."""

    peft: str = Field(
        default="adapter",
        description="kind of PEFT module: adapter, lora, prefix, parallel, or file.py:Name",
    )
    size: int | None = Field(
        default=None, ge=1, description="width, rank or length; None: 5, 5, 10, 16"
    )
    blocks: int = Field(
        default=5, ge=1, description="how many blocks get a PEFT module, from the first on"
    )

    @field_validator("peft")
    @classmethod
    def _know(cls, value: str) -> str:
        find_peft(value)
        return value

    def build(self, backbone: AdaptedViT, *, seed: int) -> AdapterSet:
        """Returns the PEFT modules for a backbone."""
        return build_adapters(
            self.peft,
            embed_dim=backbone.embed_dim,
            blocks=range(min(self.blocks, backbone.num_blocks)),
            size=self.size,
            generator=torch.Generator().manual_seed(seed),
        )
