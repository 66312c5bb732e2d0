"""Options of strategies: validated, immutable, and part of the run record."""

import warnings
from collections.abc import Mapping
from types import NoneType
from typing import Any, ClassVar, Final, Literal, Self, get_args

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from cl_adapters.earlier_names import earlier_method
from cl_adapters.errors import InputError, refuse_truth, unknown_name
from cl_adapters.heads.batch_norm import Statistics
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.heads.registry import (
    CLOSED_HEADS,
    PLAIN_HEADS,
    TRAINED_HEADS,
    ClosedHead,
    build_closed_head,
    build_trained_head,
    check_head,
)
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.bank import AdapterBank
from cl_adapters.peft.onebit_bank import OneBitBank
from cl_adapters.peft.registry import Peft, build_adapters, find_peft
from cl_adapters.peft.stack import AdapterStack
from cl_adapters.records.upgrade import OPTION_NAMES
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = [
    "CLIP_NORM",
    "AdapterSGDConfig",
    "BlockPeftConfig",
    "ClosedHead",
    "ClosedHeadConfig",
    "PeftConfig",
    "SGDConfig",
    "StoredSetsConfig",
    "StrategyConfig",
    "TrainedConfig",
    "TrainedHeadConfig",
]

# What the option `clip_norm` means, which methods have with defaults of their own.
CLIP_NORM: Final = "most that a step's gradients are long together; None: any"


class StrategyOptions(BaseModel):
    """Options that validate themselves; known for one version under earlier names as well.

    The text `none` is None for an option that may be None and is no text: `--set clip_norm=none`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _take_earlier_names(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic's
        if not isinstance(values, Mapping):
            return values
        found = cls.renamed(values)
        refuse_truth("", found, cls.model_fields)
        return {name: None if cls._is_none(name, each) else each for name, each in found.items()}

    @classmethod
    def _is_none(cls, name: str, value: object) -> bool:
        if not (isinstance(value, str) and value.lower() == "none" and name in cls.model_fields):
            return False
        kinds = get_args(cls.model_fields[name].annotation)
        return NoneType in kinds and str not in kinds

    @classmethod
    def renamed(cls, options: Mapping[str, object]) -> dict[str, object]:
        """Returns options under their present names, with one sentence for each that changed."""
        found = dict(options)
        names = {old: new for each in OPTION_NAMES.values() for old, new in each.items()}
        for old, new in names.items():
            if old in found and old not in cls.model_fields and new in cls.model_fields:
                warnings.warn(f"option `{old}` is now `{new}`", DeprecationWarning, stacklevel=4)
                found.setdefault(new, found.pop(old))
                found.pop(old, None)
        return found


class StrategyConfig(StrategyOptions):
    """Options that every strategy has.

    The defaults are what the paper describes, made to work; `official` gives what the authors' code
    computes.
    """

    batch_size: int = Field(default=24, ge=1, description="images in a training step")

    @classmethod
    def official(cls) -> Self:
        """Returns the options under which the strategy computes what its authors' code computes."""
        return cls()

    @property
    def evaluation_options(self) -> frozenset[str]:
        """Names of the options that have no part in training, however they are set."""
        return frozenset()

    def template_arguments(self) -> dict[str, Any]:
        """Returns further arguments for the constructor of Avalanche's template."""
        return {}

    def override(self, options: Mapping[str, object]) -> Self:
        """Returns a copy with some options changed; text is converted to the option's type.

        Raises:
            InputError: If an option is unknown or its value breaks a rule.
        """
        known = type(self).model_fields
        options = self.renamed(options)
        for name in options:
            if name not in known:
                raise unknown_name("option", name, known)
        try:
            return type(self).model_validate({**self.model_dump(), **options})
        except ValidationError as error:
            first, *others = error.errors()
            if not first["loc"]:  # a rule between options says itself which
                raise InputError(f"option {first['ctx']['error']}") from error
            place = _option_at(type(self), first["loc"])
            cause = first.get("ctx", {}).get("error")
            if isinstance(cause, InputError):  # which says the value itself
                raise InputError(f"option `{place}`: {cause}") from error
            same = [each for each in others if _option_at(type(self), each["loc"]) == place]
            rules = "; or: ".join(dict.fromkeys(each["msg"] for each in (first, *same)))
            raise InputError(f"option `{place}`: {rules}, got {first['input']!r}") from error


def _option_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> str:
    # The name of an option. Of one that may be of several kinds, pydantic says behind it which it
    # has tried.
    names: list[str] = []
    for part in location:
        names.append(str(part))
        field = kind.model_fields.get(str(part))
        annotation = None if field is None else field.annotation
        if len([each for each in get_args(annotation) if each is not NoneType]) > 1:
            break
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            kind = annotation
    return ".".join(names)


class TrainedConfig(StrategyConfig):
    """Options of a strategy that trains adapters by gradient descent."""

    epochs: int = Field(default=5, ge=1, description="passes over the images of an experience")
    drop_last: bool = Field(default=False, description="leave out an epoch's last, smaller batch")
    lr: float = Field(default=0.0028125, gt=0, description="constant learning rate of Adam")


class SGDConfig(StrategyConfig):
    """Options of a strategy that trains by SGD with momentum 0.9 along a cosine."""

    batch_size: int = Field(default=32, ge=1, description="images in a training step")
    epochs: int = Field(default=5, ge=1, description="passes over an experience, in each phase")
    lr: float = Field(default=0.02, gt=0, description="of SGD, cosine to 0")
    weight_decay: float = Field(default=5e-4, ge=0, description="of SGD")
    clip_norm: float | None = Field(default=None, gt=0, description=CLIP_NORM)


class TrainedHeadConfig(StrategyOptions):
    """Which classifier is trained on the adapted features."""

    fitting_heads: ClassVar[tuple[str, ...]] = PLAIN_HEADS

    head: str = Field(default="linear", description="classifier, of `cl-adapters list heads`")
    head_scale: float = Field(default=10.0, gt=0, description="of the cosines of a cosine head")
    head_statistics: Statistics = Field(
        default="first", description="of a batch_norm head: the first experience's, or running"
    )

    @field_validator("head")
    @classmethod
    def _know_head(cls, value: str) -> str:
        reason = (
            "it has a loss of its own or nothing to train, and this method asks for rows to train"
            if value in TRAINED_HEADS
            else "it is set in closed form from features that stay as they are, and training "
            "changes them"
        )
        return check_head(value, cls.fitting_heads, reason)

    def build_head(self, num_features: int, *, init_std: float | None = 0.001) -> ExperienceHeads:
        """Returns the classifier, without a class yet."""
        return build_trained_head(
            self.head,
            num_features,
            init_std=init_std,
            scale=self.head_scale,
            **self.head_options().get(self.head, {}),
        )

    def head_options(self) -> dict[str, dict[str, Any]]:
        """Returns the options that single heads have, for `build_trained_head`."""
        return {"batch_norm": {"statistics": self.head_statistics}}


class ClosedHeadConfig(StrategyOptions):
    """Which classifier is set in closed form on features that stay as they are."""

    head: str = Field(
        default="prototype", description="classifier: prototype, discriminant or ridge"
    )
    ridge: float = Field(default=1.0, gt=0, description="strength of the ridge head")

    @field_validator("head")
    @classmethod
    def _know_head(cls, value: str) -> str:
        reason = "it is trained by gradient descent, and this method trains nothing"
        return check_head(value, CLOSED_HEADS, reason)

    def build_head(self, num_features: int, scale: float) -> ClosedHead:
        """Returns the classifier, without a class yet."""
        return build_closed_head(self.head, num_features, scale=scale)


class BlockPeftConfig(StrategyOptions):
    """Which PEFT module goes into every block."""

    peft: str = Field(
        default="parallel",
        description="kind of PEFT module: one of `cl-adapters list peft`, or file.py:Name",
    )
    size: int | None = Field(
        default=None,
        ge=1,
        description="of a PEFT module: width, rank or length; None: its own, 16 of parallel",
    )

    @field_validator("peft")
    @classmethod
    def _know_peft(cls, value: str) -> str:
        find_peft(value)
        return value

    @property
    def chosen(self) -> tuple[Peft, int]:
        """The kind of PEFT module and its width, rank or length."""
        kind = find_peft(self.peft)
        return kind, kind.default_size if self.size is None else self.size

    def build_stack(
        self, backbone: AdaptedViT, seed: int, *, begins_once: bool = False, **options: object
    ) -> AdapterStack:
        """Returns a new module for each block of a backbone, stacked.

        Args:
            backbone: The frozen ViT.
            seed: Of the initial weights.
            begins_once: Whether no other set will begin where this one does.
            **options: Of the parallel adapter; other kinds see to these things themselves.
        """
        peft, size = self.chosen
        return AdapterStack.build(
            peft,
            embed_dim=backbone.embed_dim,
            blocks=backbone.num_blocks,
            size=size,
            generator=torch.Generator().manual_seed(seed),
            sites=backbone.site,
            begins_once=begins_once,
            **options,
        )

    def refuse_beside_parallel(self, defaults: Mapping[str, object]) -> None:
        """Refuses options that only the parallel adapter has beside another kind.

        Args:
            defaults: What these options have to stay at.

        Raises:
            ValueError: If one does not.
        """
        for name, default in defaults.items():
            if self.peft != "parallel" and getattr(self, name) != default:
                raise ValueError(
                    f"`{name}` must stay at {default} with peft {self.peft!r}, since only the "
                    f"parallel adapter has it, got {getattr(self, name)}"
                )


class StoredSetsConfig(StrategyOptions):
    """How finished sets of PEFT modules are stored."""

    set_storage: Literal["float", "one_bit"] = Field(
        default="float", description="of finished sets: as trained, or at one bit a number"
    )

    def build_bank(self, stack: AdapterStack) -> AdapterBank:
        """Returns a bank for sets that look like one, without a set yet."""
        return OneBitBank(stack) if self.set_storage == "one_bit" else AdapterBank(stack)

    def refuse_beside_bits(self, values: Mapping[str, object]) -> None:
        """Refuses values of options under which stored sets would change.

        Args:
            values: The value of each option.

        Raises:
            ValueError: If sets are stored in bits, and one is chosen.
        """
        for name, value in values.items():
            if self.set_storage == "one_bit" and getattr(self, name) == value:
                raise ValueError(
                    f"`{name}` must not be {value} with set_storage 'one_bit', since sets that "
                    f"are stored in bits stay as they are, got {value}"
                )


class AdapterSGDConfig(SGDConfig, BlockPeftConfig):
    """A PEFT module in every block, trained by SGD as PILOT's methods train their adapters.

    The defaults are theirs but for `peft_scale`: an adapter whose output counts a tenth learns
    little in the few steps of a small stream.
    """

    parallel_size: ClassVar[int] = 64  # where `size` says none

    batch_size: int = Field(default=48, ge=1, description="images in a training step")
    epochs: int = Field(default=20, ge=1, description="passes over the images of an experience")
    lr: float = Field(default=0.01, gt=0, description="of SGD, cosine to 0")
    size: int | None = Field(
        default=None,
        ge=1,
        description="of a module: width, rank or length; None: 64 of parallel, another's own",
    )
    peft_scale: float = Field(default=1.0, gt=0, description="of a parallel adapter's output")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="in a parallel adapter's middle")

    @model_validator(mode="after")
    def _check_parallel(self) -> Self:
        self.refuse_beside_parallel({"peft_scale": 1.0, "dropout": 0.1})
        return self

    @classmethod
    def official(cls) -> Self:
        """Returns the authors' settings."""
        return cls(peft_scale=0.1)

    @property
    def chosen(self) -> tuple[Peft, int]:
        """The kind of PEFT module and its width, rank or length."""
        peft, size = super().chosen
        is_plain = self.size is None and self.peft == "parallel"
        return peft, self.parallel_size if is_plain else size

    def build_stack(
        self, backbone: AdaptedViT, seed: int, *, begins_once: bool = False, **options: object
    ) -> AdapterStack:
        """Returns a new module for each block of a backbone, stacked."""
        given = {"scale": self.peft_scale, "dropout": self.dropout, **options}
        return super().build_stack(backbone, seed, begins_once=begins_once, **given)


class PeftConfig(BlockPeftConfig):
    """Which PEFT module goes into which blocks."""

    peft: str = Field(
        default="adapter",
        description="kind of PEFT module: one of `cl-adapters list peft`, or file.py:Name",
    )
    size: int | None = Field(
        default=None, ge=1, description="width, rank or length; None: the kind's own"
    )
    blocks: int = Field(
        default=5, ge=1, description="how many blocks get a PEFT module, from the first on"
    )

    def build_adapters(self, backbone: AdaptedViT, *, seed: int) -> AdapterSet:
        """Returns the PEFT modules for a backbone."""
        return build_adapters(
            self.peft,
            embed_dim=backbone.embed_dim,
            blocks=range(min(self.blocks, backbone.num_blocks)),
            size=self.size,
            generator=torch.Generator().manual_seed(seed),
            sites=backbone.site,
        )

    build = earlier_method("build", "build_adapters")
