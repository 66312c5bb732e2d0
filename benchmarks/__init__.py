"""From images to recorded runs.

`data` holds images and makes pixels of them, `streams` says what comes when, `running` takes one
run from its recipe to its record, `sweeps` takes many; `bench` measures speed, `maintenance` holds
what is in no wheel. Recipes, protocols, published results and templates lie beside them as files.
At the top are commands that look at all of it, and `api`, which runs from Python. Imports go one
way: `sweeps` and `bench`, then `running`, `streams`, `data`.
"""
