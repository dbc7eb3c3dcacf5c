# `make` sets up .venv with the tested versions; everything else builds on it. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Where torch comes from, if not from where pip looks by itself: an index with CPU wheels saves gigabytes of CUDA.
TORCH_INDEX ?=
# One thread a process: two spinning thread pools on few cores make tests ten times slower.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
WORKERS ?= 2

.PHONY: venv demo test test-slow faults check clean help

venv: $(STAMP)  ## make .venv and install the package with its test extras

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

demo: $(STAMP)  ## the whole story on shipped real records: store, two phases, test, picture
	$(BIN)/ecg-lightning demo

test: $(STAMP)  ## the fast tests (under 10 minutes)
	$(PYTEST) -n $(WORKERS) -m "not slow"

test-slow: $(STAMP)  ## the slow tests: wheel, demo, killed runs (under 20 minutes)
	$(PYTEST) -n $(WORKERS) --timeout 900 -m slow

faults: $(STAMP)  ## kills runs at random moments, 40 in all (KILLS=N SEED=N), and holds each against one never killed
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults/campaign.py $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))

check: $(STAMP)  ## ruff, mypy --strict, doctests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict -p ecg_lightning
	$(PYTEST) --doctest-modules ecg_lightning

clean:  ## remove the environment, caches and the demo's output
	rm -rf $(VENV) demo_output dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
