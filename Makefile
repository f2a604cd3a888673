# make run     environment, install, the main job          make test    environment, whole suite
# make proofs  slow proofs, `floor` and `lmms` among them  make lint    ruff
# make floor   gold tests of all model families on the oldest transformers that is supported; minutes
# make lmms    the tasks of lmms-eval, in an environment with it
# make validate-results  every submission in results/, as continuous integration checks them
# make results  the first board (results/first-board.toml): answers, times and submits it; goes on where it stopped; hours
# make reference  remake the suite and compare it, train model A (goes on where it stopped), evaluate; about 2 hours
# Tests run in two processes of one thread each: two threads each would fight over two cores.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: run test proofs floor lmms lint results validate-results reference clean

run: $(VENV)/installed
	$(BIN)/harness run --method quietprune

test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not proof"

# What compares times is proved alone: beside a second process one in a few of its runs is off by more than it may be.
TIMED := tests/latency/test_proofs_latency.py
proofs: $(VENV)/installed-proofs floor lmms
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m proof --ignore $(TIMED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m proof $(TIMED)

FLOOR := .venv-floor
FLOOR_VERSION := $(shell sed -n 's/^ *"transformers>=\([0-9.]*\),.*/\1.0/p' pyproject.toml)
floor: $(FLOOR)/installed-$(FLOOR_VERSION)
	$(FLOOR)/bin/python -c "import transformers as t; assert t.__version__ == '$(FLOOR_VERSION)', t.__version__"
	OMP_NUM_THREADS=1 $(FLOOR)/bin/python -m pytest -n 2 tests/models/test_gold_*.py

LMMS := .venv-lmms
lmms: $(LMMS)/installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(LMMS)/bin/python -m pytest -n 2 -m proof tests/integrations/test_lmms_*.py

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

RESULTS := results
BASE := HEAD
validate-results: $(VENV)/installed
	$(BIN)/harness validate "$(RESULTS)" --base "$(BASE)"

BOARD := runs/board/board.duckdb
results: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/harness sweep results/first-board.toml --workers 2 --store $(BOARD)
	$(BIN)/harness submit --store $(BOARD)

REFERENCE := runs/reference
reference: $(VENV)/installed-reference
	$(BIN)/python -m harness.reference_training.make_suite --seed 0 --out $(REFERENCE)/suite
	cd $(REFERENCE)/suite && sha256sum --quiet --check $(CURDIR)/harness/reference/suite/SHA256SUMS
	OMP_NUM_THREADS=1 $(BIN)/python -m harness.reference_training.train --minutes 97.5 --seeing-minutes 12 --workers 2 \
	    --out $(REFERENCE)/training --export-to $(REFERENCE)/model-a $(if $(wildcard $(REFERENCE)/training/checkpoint.pt),--resume)
	$(BIN)/python -m harness.reference_training.evaluate --checkpoint $(REFERENCE)/model-a
	$(BIN)/python -m harness.reference_training.gate --checkpoint $(REFERENCE)/model-a

clean:
	rm -rf $(VENV) $(FLOOR) $(LMMS)

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
	$(PIP) --editable ".[ray,profile]"
	touch $@

$(VENV)/installed-reference: $(VENV)/installed
	$(PIP) --editable ".[reference]"
	touch $@

# $(call beside,DIR): an environment with all that the first one has: seconds instead of another torch
define beside
	rm -rf $(1) && $(BIN)/python -m venv $(1)
	$(BIN)/python -c "import sysconfig as s; print(f'import site; site.addsitedir({s.get_path(\"purelib\")!r})')" \
	    > "$$($(1)/bin/python -c 'import sysconfig as s; print(s.get_path("purelib"))')/other.pth"
endef

$(FLOOR)/installed-$(FLOOR_VERSION): $(VENV)/installed-test
	$(call beside,$(FLOOR))
	grep -v '^transformers==' constraints.txt > $(FLOOR)/constraints.txt
	$(FLOOR)/bin/python -m pip install --quiet --constraint $(FLOOR)/constraints.txt transformers==$(FLOOR_VERSION)
	touch $@

# the lines of docs/lmms.md; decord is what lmms-eval's own model classes import
LMMS_PIP := $(LMMS)/bin/python -m pip install --quiet --constraint constraints-lmms.txt
$(LMMS)/installed: $(VENV)/installed-test constraints-lmms.txt
	$(call beside,$(LMMS))
	$(LMMS_PIP) --no-deps lmms-eval
	$(LMMS_PIP) accelerate datasets evaluate sacrebleu loguru pytz tenacity pytablewriter
	$(LMMS_PIP) decord
	touch $@
