"""Which router mixes the adapters of a slot."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from cl_adapters.peft.router_registry import Router, build_router, find_router
from cl_adapters.strategies.core.config import StrategyOptions

__all__ = ["RouterConfig"]


class RouterConfig(StrategyOptions):
    """Which router mixes the adapters of a slot; beside options of growth."""

    router: str = Field(
        default="discriminant",
        description="who mixes a slot's adapters: of `cl-adapters list routers`, or file.py:Name",
    )
    router_splits: int = Field(
        default=1, ge=1, description="parts of an adapter that router poly weighs apart (MHR)"
    )

    @field_validator("router")
    @classmethod
    def _know_router(cls, value: str) -> str:
        find_router(value)
        return value

    @model_validator(mode="after")
    def _check_router(self) -> Self:
        kind = find_router(self.router)
        if self.router_splits != 1 and "splits" not in kind.options:
            raise ValueError(
                f"`router_splits` must stay at 1 with router {self.router!r}, which weighs whole "
                f"adapters, got {self.router_splits}"
            )
        plain = type(self).model_fields["router"].default
        if self.router != plain and getattr(self, "watch", None) == "network":
            raise ValueError(
                f"`watch` must be slots with router {self.router!r}, since no router is asked "
                "where images take whole paths, got 'network'"
            )
        if kind.shares_blocks and getattr(self, "policy", None) == "per_block":
            raise ValueError(
                f"`policy` must not be per_block with router {self.router!r}, whose numbers are "
                "those of all blocks, so that these have to grow together, got 'per_block'"
            )
        return self

    def build_router(self, embed_dim: int) -> Router:
        """Returns a router for one slot, without an adapter yet."""
        return build_router(self.router, embed_dim, {"splits": self.router_splits})
