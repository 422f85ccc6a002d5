# Every target makes what it needs, and does nothing twice. PYTHON chooses the interpreter (3.11 to 3.13).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# How the shipped weights are trained; chosen on the validation split.
XPOOL := --learning-rate 3e-5
DITS := --learning-rate 1e-5 --noise-scale 0
SEEDS := 1 2 3 4 5

.PHONY: demo test test-all lint bench weights seeds clean

demo: $(VENV)/.runtime
	$(BIN)/python app.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not benchmark"

bench: $(VENV)/.dev
	$(BIN)/python -m pytest -m benchmark --benchmark-columns=min,median,rounds tests/benchmarks

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Trains everything that assets/ ships, from the pretrained towers on.
weights: $(VENV)/.dev
	$(BIN)/python -m dits train encoder --out assets/encoder
	$(BIN)/python -m dits encode --ship
	$(BIN)/python -m dits train xpool $(XPOOL) --ship --half
	$(BIN)/python -m dits train dits $(DITS) --ship --half

# The README's table: training repeated with five seeds, then evaluated on the test split.
seeds: $(VENV)/.dev
	for seed in $(SEEDS); do \
	  $(BIN)/python -m dits train xpool $(XPOOL) --seed $$seed --out runs/seed-$$seed/xpool.safetensors && \
	  $(BIN)/python -m dits train dits $(DITS) --seed $$seed --out runs/seed-$$seed/dits.safetensors || exit 1; \
	done
	$(BIN)/python -m dits evaluate --split test $(foreach seed,$(SEEDS),--weights runs/seed-$(seed))

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/.dev: requirements.txt requirements-dev.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@
