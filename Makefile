# Set-up, search and tests from a clean clone: nothing else is needed than Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles what it imports and keeps that; to compile all of torch and Ray beforehand takes as long as to install
# them. Where it may keep nothing, as in many containers, every process of a search compiles its imports anew.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --no-input --no-compile --disable-pip-version-check \
	--constraint cluster/constraints.txt
FIRST_IMPORT := $(BIN)/python -c 'import bvae_tune.search.tuning, bvae_tune.search.trial_run, bvae_tune.metrics.classifier, \
	sklearn.metrics.cluster, tensorboard.compat.proto.event_pb2'
SPACE ?= search_spaces/shapes.yaml

.PHONY: setup search test soak bench check wheel clean
.DEFAULT_GOAL := setup

setup: $(VENV)/.installed

search: $(VENV)/.installed
	$(BIN)/bvae-tune search --space $(SPACE)

# Two workers, because most tests wait for processes that they start; a free one takes tests over from the other.
test: check
	$(BIN)/python -m pytest -m "not slow and not soak" --numprocesses 2 --dist worksteal

# Kills by the dozen, real clusters and slow comparisons.
soak: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "slow or soak" --timeout 7200

# STUDY=runs/NAME, a finished study of the default space: shows where the time of that one went.
bench: $(VENV)/.installed-test
	$(BIN)/python tests/benchmarks/run.py --json bench.json $(if $(STUDY),--study $(STUDY))

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict

# For the clusters: cluster/*.yaml send it to their machines.
wheel: $(VENV)/.installed
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# The project is installed in place, so that a pulled or edited source is what runs; only a change of what it depends
# on needs another installation.
$(VENV)/.installed: pyproject.toml cluster/constraints.txt | $(BIN)/python
	$(INSTALL) --editable .
	$(FIRST_IMPORT)
	touch $@

$(VENV)/.installed-test: pyproject.toml cluster/constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[test]'
	$(FIRST_IMPORT)
	touch $(VENV)/.installed $@
