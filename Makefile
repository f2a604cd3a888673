# make run     environment, install, the main job          make test    environment, whole suite
# make proofs  slow proofs                                 make lint    ruff
# make reference  remake the suite and compare it, train model A (goes on where it stopped), evaluate; about 2 hours
# Tests run in two processes of one thread each: two threads each would fight over two cores.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: run test proofs lint reference clean

run: $(VENV)/installed
	$(BIN)/harness run --method quietprune

test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not proof"

proofs: $(VENV)/installed-proofs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m proof

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

REFERENCE := runs/reference
reference: $(VENV)/installed-reference
	$(BIN)/python -m harness.reference.make_suite --seed 0 --out $(REFERENCE)/suite
	cd $(REFERENCE)/suite && sha256sum --quiet --check $(CURDIR)/harness/reference/suite/SHA256SUMS
	OMP_NUM_THREADS=1 $(BIN)/python -m harness.reference.train --minutes 97.5 --seeing-minutes 12 --workers 2 \
	    --out $(REFERENCE)/training --export-to $(REFERENCE)/model-a $(if $(wildcard $(REFERENCE)/training/checkpoint.pt),--resume)
	$(BIN)/python -m harness.reference.evaluate --checkpoint $(REFERENCE)/model-a
	$(BIN)/python -m harness.reference.gate --checkpoint $(REFERENCE)/model-a

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

$(VENV)/installed-proofs: $(VENV)/installed-test
	$(PIP) --editable ".[ray]"
	touch $@

$(VENV)/installed-reference: $(VENV)/installed
	$(PIP) --editable ".[reference]"
	touch $@
