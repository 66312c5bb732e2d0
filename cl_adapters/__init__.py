"""Continual learning on a frozen Vision Transformer with adapters.

    import cl_adapters as cla

    runs = cla.run(["lae", "simplecil"], stream="digits", seeds=3)
    cla.load_runs("runs").table()
    cla.load(runs[0].folder).predict(["photo.jpg"]).names

The building blocks live here, the methods in `cl_adapters.strategies`, data and the runner in
`cl_adapters.benchmarks`, metrics and figures in `cl_adapters.reports`. This file imports nothing
but the table of names that moved, so that reading records never loads torch; what stands in
`__all__` is imported when it is asked for.
"""

import importlib
import warnings
from typing import TYPE_CHECKING, Any, Final

from cl_adapters.earlier_names import install

if TYPE_CHECKING:
    from cl_adapters.api import calibrate, continue_run, export, load, run
    from cl_adapters.bundle.model import Answers, LearnedModel
    from cl_adapters.errors import InputError, RunError
    from cl_adapters.reports.runs import Runs, load_runs

__all__ = [
    "Answers",
    "InputError",
    "LearnedModel",
    "RunError",
    "Runs",
    "__version__",
    "calibrate",
    "continue_run",
    "export",
    "load",
    "load_runs",
    "run",
]

__version__ = "0.1.0"

_PLACES: Final = {
    "Answers": "cl_adapters.bundle.model",
    "InputError": "cl_adapters.errors",
    "LearnedModel": "cl_adapters.bundle.model",
    "RunError": "cl_adapters.errors",
    "Runs": "cl_adapters.reports.runs",
    "calibrate": "cl_adapters.benchmarks.calibration",
    "continue_run": "cl_adapters.api",
    "export": "cl_adapters.api",
    "load": "cl_adapters.bundle.files",
    "load_runs": "cl_adapters.reports.runs",
    "run": "cl_adapters.api",
}

install()


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever stands there
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with warnings.catch_warnings():
        # Avalanche's dependency warns that it found no QP solver, which nothing here uses.
        warnings.filterwarnings("ignore", message="no QP solver found")
        # Another one's, in a notebook without widgets, where no bar of it is ever shown.
        warnings.filterwarnings("ignore", message="IProgress not found")
        value = globals()[name] = getattr(importlib.import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
