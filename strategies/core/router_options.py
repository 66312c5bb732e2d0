"""Which router mixes the adapters of a slot."""

from pydantic import Field, field_validator

from cl_adapters.peft.router_registry import find_router
from cl_adapters.strategies.core.config import StrategyOptions

__all__ = ["RouterConfig"]


class RouterConfig(StrategyOptions):
    """Which router mixes the adapters of a slot."""

    router: str = Field(
        default="discriminant",
        description="who mixes a slot's adapters: of `cl-adapters list routers`, or file.py:Name",
    )

    @field_validator("router")
    @classmethod
    def _know_router(cls, value: str) -> str:
        find_router(value)
        return value
