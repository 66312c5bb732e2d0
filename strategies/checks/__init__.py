"""What every strategy must satisfy, as named checks."""

from typing import TYPE_CHECKING

from cl_adapters.earlier_names import names_of

if not TYPE_CHECKING:  # to a type checker, names that moved are gone
    __getattr__ = names_of(__name__)
