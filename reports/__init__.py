"""Run directories in, metrics, tables, figures and one HTML page out.

Reads what `cl_adapters.records` describes and nothing else; needs no torch. `write_report` of
`cl_adapters.reports.report` is the entry; every number is a function of `metrics.py` or
`forgetting.py` and stands with its formula in `definitions.py`.
"""
