"""`python -m cl_adapters` is `cl-adapters`."""

from cl_adapters.cli import main

main()
