# Every command of the project. A bare `make` lists them; the longer recipes live in scripts/.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

VENV := .venv
PY := $(VENV)/bin/python
TOOLS := $(VENV)/.stamp-requirements
ENGINE := python/forebay/_engine.abi3.so
RUST_SOURCES := $(shell find crates -path '*/src/*' -name '*.rs' 2>/dev/null) $(wildcard crates/*/Cargo.toml)
# Extra words for the runner underneath: make test-python ARGS="-k resume -x"
ARGS ?=

# rustup's default place, in case the shell that calls make has not read its profile yet.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH):$(HOME)/.cargo/bin
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PYO3_PYTHON := $(CURDIR)/$(PY)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

ifeq ($(CI),true)
export NO_COLOR := 1
export CARGO_TERM_COLOR := never
export CARGO_TERM_PROGRESS_WHEN := never
export PIP_PROGRESS_BAR := off
endif

.PHONY: help setup demo test test-rust test-python bench inputs contract libraries check loom wheel clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(ENGINE) ## create .venv, install what development needs, build the engine
	@echo "forebay is ready in $(VENV): source $(VENV)/bin/activate"

demo: $(ENGINE) ## train on real photographs through Forebay, and show what it did
	$(PY) demo/train.py $(ARGS)

test: test-rust test-python ## run all tests, Rust first

test-rust: $(TOOLS) ## run the Rust tests and the documentation's examples
	scripts/test-rust.sh $(ARGS)

test-python: $(ENGINE) ## run the Python tests against the built engine
	$(PY) -m pytest $(ARGS)

bench: $(ENGINE) ## measure again every figure that the documents quote
	$(PY) bench/run.py $(ARGS)

inputs: $(ENGINE) ## write docs/inputs.md again: what torch's loader and ours do with whatever users throw at them
	$(PY) tests/inputs/table.py $(ARGS)

contract: $(ENGINE) ## write docs/pytorch-contract.md again: what PyTorch's contract is, law by law, and where we differ
	$(PY) tests/contract/table.py

libraries: $(ENGINE) ## write docs/pytorch.md's table again: other libraries train with torch's loader and ours
	$(PY) tests/libraries/library_table.py

check: $(ENGINE) ## formatting, lints, types, stubs, project laws, documentation, a short loom run
	scripts/check.sh

loom: ## try the interleavings of queues and wake-ups at length
	scripts/loom.sh 5

wheel: $(TOOLS) ## build a manylinux wheel into dist/ and try it in an empty environment
	scripts/wheel.sh

clean: ## remove what was built; .venv stays (rm -rf .venv removes that, too)
	rm -rf target dist .pytest_cache .mypy_cache .ruff_cache .hypothesis $(ENGINE)
	find $(wildcard python tests bench demo scripts examples) -name __pycache__ -type d -prune -exec rm -rf {} +

$(TOOLS): scripts/requirements-dev.txt pyproject.toml scripts/setup.sh scripts/lib.sh
	scripts/setup.sh
	@touch $@

$(ENGINE): $(TOOLS) pyproject.toml Cargo.toml $(wildcard Cargo.lock) $(RUST_SOURCES)
	@echo "==> building the engine into $@ (release; cargo rebuilds only what changed)"
	maturin develop --release $(if $(filter true,$(CI)),--locked)
	@touch $@
