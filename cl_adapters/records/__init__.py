"""What a run leaves: written and read in one place.

Names load when they are asked for: who reads a recipe needs no table.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from cl_adapters.earlier_names import names_of

if TYPE_CHECKING:
    from cl_adapters.records.events import (
        Event,
        OtherEvent,
        append_events,
        make_event,
        parse_event,
        read_events,
        truncate_events,
    )
    from cl_adapters.records.files import FORMAT_VERSION, atomic_path, digest
    from cl_adapters.records.run_record import (
        RunRecord,
        RunState,
        find_run_folder,
        find_runs,
        verify_checksum,
    )
    from cl_adapters.records.tables import (
        EXAMPLE_COLUMNS,
        PREDICTION_COLUMNS,
        RETRIEVAL_COLUMNS,
        read_examples,
        read_predictions,
        read_retrieval,
        write_examples,
        write_predictions,
        write_retrieval,
    )

__all__ = [
    "EXAMPLE_COLUMNS",
    "FORMAT_VERSION",
    "PREDICTION_COLUMNS",
    "RETRIEVAL_COLUMNS",
    "Event",
    "OtherEvent",
    "RunRecord",
    "RunState",
    "append_events",
    "atomic_path",
    "digest",
    "find_run_folder",
    "find_runs",
    "make_event",
    "parse_event",
    "read_events",
    "read_examples",
    "read_predictions",
    "read_retrieval",
    "truncate_events",
    "verify_checksum",
    "write_examples",
    "write_predictions",
    "write_retrieval",
]

_HOMES: Final = ("events", "files", "run_record", "tables")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever has the name
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"{__name__}.{home}")
            if name in module.__all__:
                return getattr(module, name)
    return names_of(__name__)(name)
