# Two commands do everything on a machine with Python 3.11: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
OLDEST := .venv-oldest
# One process a core, a file of tests to one process: they share what is slow to set up.
SPLIT := --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: demo test test-oldest slow mutants reliability lint docs clean

demo: $(READY)
	$(BIN)/cl-adapters sweep examples/demo.toml --workers 2 --out runs
	$(BIN)/cl-adapters report runs/digits-shift --out report

test: $(READY)
	$(BIN)/python -m pytest $(SPLIT)

# The same tests on the oldest version that pyproject.toml allows of each package that it names.
test-oldest: $(OLDEST)/.ready
	$(OLDEST)/bin/python -m pytest $(SPLIT)

slow: $(READY)
	$(BIN)/python -m pytest $(SPLIT) --durations 20 -m "slow and not alone"
	$(BIN)/python -m pytest --durations 10 -m alone

# Small wrong changes, which the tests must notice; SAMPLE="--sample 20 --seed COMMIT" tries some.
mutants: $(READY)
	$(BIN)/python tests/mutants.py $(SAMPLE)

# What is broken, killed and fed with rubbish; the table of docs/reliability.md is made of its counts.
reliability: $(READY)
	RELIABILITY=tests/reliability.json $(BIN)/python -m pytest $(SPLIT) -m "slow or not slow" \
		-k "killed or faults or bad_input or soak or integrity or damage or going_on or fuzz or odd_data"
	$(BIN)/python docs/reliability_table.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site: pages of docs/ and the docstrings, into site/; any warning is an error.
docs: $(READY)
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(READY)

# The lowest bounds are given as constraints too: where something that a package brings along asks
# for a newer version, the resolver then says so, instead of taking the newer one.
$(OLDEST)/.ready: pyproject.toml | $(READY)
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(OLDEST)
	sed -nE '/^dependencies/,/^\]/s/^ +"([a-z0-9-]+)>=([^",]+).*/\1==\2/p' pyproject.toml > $(OLDEST)/bounds.txt
	$(BIN)/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct \
		--constraint $(OLDEST)/bounds.txt --editable ".[tests]"
	touch $@

clean:
	rm -rf .venv $(OLDEST) runs report site
