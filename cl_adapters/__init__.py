"""Continual learning on a frozen Vision Transformer with adapters.

The building blocks live here, the methods in `cl_adapters.strategies`, data and the runner in
`cl_adapters.benchmarks`, metrics and figures in `cl_adapters.reports`. This file imports nothing
but the table of names that moved, so that reading records never loads torch.
"""

from cl_adapters.earlier_names import install

__version__ = "0.1.0"

install()
