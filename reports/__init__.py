"""Run directories in, metrics, tables, figures and one HTML page out.

Reads what `cl_adapters.records` describes and nothing else; needs no torch. `write_report` of
`cl_adapters.reports.report` is the entry; every number is a function of `metrics.py` or
`forgetting.py` and stands with its formula in `definitions.py`.

    load, groups, notes     runs as they were measured, side by side by stream and protocol
    runs                    the same as tables of pandas and figures, for notebooks and scripts
    detail, growth,         what is read of one run for one topic
    retrieval, votes,
    examples, boundaries
    seeds, paired, pareto   intervals, differences and ranks, what is worth its cost
    figures/, tables/       a topic a file: measured runs in, a figure or the text of a table out
    sections/               a topic of the page: its figures, its tables, what the template shows
    page, report.*,         the page: template, style and script
    macros.html.j2
    publish, published/     what the README shows
"""
