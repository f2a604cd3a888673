# make run     environment, install, the main job          make test    environment, whole suite
# make proofs  slow proofs                                 make lint    ruff
# Tests run in two processes of one thread each: two threads each would fight over two cores.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: run test proofs lint clean

run: $(VENV)/installed
	$(BIN)/harness run --method quietprune

test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not proof"

proofs: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m proof

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch goes first and exactly pinned, so that no later requirement chooses another build of it
$(VENV)/installed: $(VENV)/bin/python constraints.txt pyproject.toml
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) --editable ".[test]"
	touch $@
