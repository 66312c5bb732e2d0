"""The recipe of a run: everything that decides its result, validated in one place.

The command's options, the keys of a TOML file (`--recipe`) and the `config` in `run.json` are the
same names. One recipe is one run: one strategy, one stream, one seed.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cl_adapters.embedded import EMBEDDED
from cl_adapters.errors import InputError, unknown_name

__all__ = ["RunConfig", "read_recipe"]


class RunConfig(BaseModel):
    """The recipe of one run; see each field's description."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    strategy: str = Field(description="name of a strategy")
    stream: str = Field(default="digits", description="name of a built-in source")
    data: str | None = Field(
        default=None, description="image folder or parquet file; replaces stream"
    )
    increment: int = Field(default=2, ge=1, description="classes an experience")
    first: int | None = Field(default=None, ge=0, description="classes of the first experience")
    class_order: str = Field(default="seeded", description="natural, seeded, numpy1993 or a list")
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="of class order, weights and order of images"
    )
    backbone: str = Field(default=EMBEDDED, description="timm architecture and tag")
    weights: str | None = Field(default=None, description="weight file, or 'random'")
    image_size: int | None = Field(default=None, ge=1, description="side of the input in pixels")
    input_range: str = Field(default="timm", description="timm, pilot_01 or imagenet")
    augment: Literal["none", "crop", "crop_flip"] = Field(default="none", description="in training")
    crop_scale: float = Field(
        default=0.5, gt=0, le=1, description="smallest share of a random crop"
    )
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="of forward passes")
    device: str = Field(default="cpu", description="torch device, or 'auto'")
    threads: int | None = Field(default=None, ge=1, description="CPU threads; None: torch's choice")
    fidelity: Literal["default", "official"] = Field(default="default", description="of the method")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the strategy")

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
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise InputError(
                f"recipe key `{place}`: {first['msg']}, got {first['input']!r}"
            ) from error

    @property
    def source(self) -> str:
        """Name or path of where the images come from."""
        return self.data or self.stream


def read_recipe(path: Path) -> dict[str, Any]:
    """Reads a recipe from a TOML file.

    Raises:
        InputError: If the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"recipe {str(path)!r} must be a readable TOML file, got: {error}"
        ) from error
