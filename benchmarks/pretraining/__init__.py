"""Parts of the recipe of the embedded backbone; `cl_adapters.benchmarks.pretrain` runs it."""
