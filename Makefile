# `make demo` and `make test` are all a fresh clone needs: both call `make setup` first.
SHELL := /bin/sh
BIN := .venv/bin
CODE := src tests bench faults
# What runs beside each other. Timing tests run alone afterwards: neighbours would be measured too.
JOBS ?= auto
PYTEST := $(BIN)/pytest

.DEFAULT_GOAL := help
.PHONY: help setup lint format test test-fast soak demo bench faults interop fuzz docs lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.ready ## install what is missing (apt, .venv); quick when nothing is

.venv/.ready: requirements.lock pyproject.toml scripts/setup
	@scripts/setup

lint: setup ## format, lint, types, house plan
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## let ruff put the code in order
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

test: lint ## the gates and all tests
	$(PYTEST) -q -n $(JOBS) --dist worksteal -m "not timing"
	$(PYTEST) -q -m timing

test-fast: setup ## unit and model tests only: no QEMU, no clients
	$(PYTEST) -q -n $(JOBS) -m "not timing and not qemu and not clients"

soak: setup ## the long runs: 200 migrations back and forth, every kill and abort moment
	STERNA_MIGRATIONS=200 STERNA_KILL_MOMENTS=100 STERNA_ABORT_MOMENTS=20 $(PYTEST) -q --timeout 3600 tests/qemu

demo: setup ## two hosts, a live migration there and back, and a controller that dies
	@$(BIN)/sterna demo

bench: setup ## Sterna, bare QEMU and libvirtd side by side
	PYTHONPATH=tests $(BIN)/python -m bench
	PYTHONPATH=tests $(BIN)/python -m bench.roads

faults: setup ## every fault in every phase on real QEMU, for an hour; a run that was cut off goes on
	PYTHONPATH=tests $(BIN)/python -m faults $(CASES)

interop: setup ## guests move between Sterna and the real libvirtd, both ways on every road
	$(PYTEST) -q -rs tests/qemu/test_with_libvirtd.py tests/clients/test_tls.py

fuzz: setup ## throw malformed packets and XML at it, for a long time
	STERNA_FUZZ_EXAMPLES=200000 $(PYTEST) -q --timeout 14400 -n $(JOBS) $$(find tests -name 'test_fuzz*.py')

docs: setup ## make again what the reference pages draw from the code
	$(BIN)/python -m docs.build

lock: setup ## choose the newest allowed versions and pin them
	$(BIN)/python -c 'import uv' 2>/dev/null || $(BIN)/pip install -q uv
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --no-emit-index-url --no-emit-find-links --group dev pyproject.toml -o requirements.lock

clean: ## remove what was made here
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
