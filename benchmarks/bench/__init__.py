"""Speed as ratios within one run: `cl-adapters bench`."""

from cl_adapters.benchmarks.bench.metrics import Metric, best_of, compare, read_metrics
from cl_adapters.benchmarks.bench.targets import Bench, BenchResult, run_bench
from cl_adapters.benchmarks.bench.track import BenchSettings

__all__ = [
    "Bench",
    "BenchResult",
    "BenchSettings",
    "Metric",
    "best_of",
    "compare",
    "read_metrics",
    "run_bench",
]
