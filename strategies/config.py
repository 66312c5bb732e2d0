"""Options of strategies: validated, immutable, and part of the run record."""

from collections.abc import Mapping
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cl_adapters.adapters import AdapterSet, build_pets
from cl_adapters.backbone import AdaptedViT
from cl_adapters.errors import InputError, unknown_name

__all__ = ["PetConfig", "StrategyConfig", "TrainedConfig"]


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
            raise InputError(f"option `{place}`: {first['msg']}, got {first['input']!r}") from error


class TrainedConfig(StrategyConfig):
    """Options of a strategy that trains adapters by gradient descent."""

    epochs: int = Field(default=5, ge=1, description="passes over the images of an experience")
    drop_last: bool = Field(default=False, description="leave out an epoch's last, smaller batch")
    lr: float = Field(default=0.0028125, gt=0, description="constant learning rate of Adam")


class PetConfig(BaseModel):
    """Which PET goes into which blocks."""

    pet: Literal["adapter", "lora", "prefix"] = Field(default="adapter", description="kind of PET")
    size: int | None = Field(
        default=None, ge=1, description="width, rank or length; None: 5, 5, 10"
    )
    blocks: int = Field(default=5, ge=1, description="how many blocks get a PET, from the first on")

    def build(self, backbone: AdaptedViT, *, seed: int) -> AdapterSet:
        """Returns the PETs for a backbone."""
        return build_pets(
            self.pet,
            embed_dim=backbone.embed_dim,
            blocks=range(min(self.blocks, backbone.num_blocks)),
            size=self.size,
            generator=torch.Generator().manual_seed(seed),
        )
