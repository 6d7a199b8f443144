# Every target does its own set-up in .venv; nothing is installed system-wide.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
FUZZ_SECONDS ?= 5
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check fuzz bench bench-check audit docs clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# Stamps stand for "installed as pyproject.toml and constraints.txt now say".
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Lesionary needs Python 3.11 or newer: make PYTHON=python3.11 …" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing Lesionary into $(VENV) (about 300 MB, a minute or two)"
	@$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-train: $(VENV)/.installed
	@echo "installing PyTorch beside it (some 5 GB, another minute or two)"
	@$(PIP_INSTALL) --editable '.[train]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-train
	@$(PIP_INSTALL) --editable '.[dev,train]'
	@touch $@

$(VENV)/.installed-fuzz: $(VENV)/.installed-dev
	@$(PIP_INSTALL) --editable '.[dev,train,fuzz]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@$(PIP_INSTALL) --editable '.[dev,train,bench]'
	@touch $@

$(VENV)/.installed-audit: $(VENV)/.installed-bench $(VENV)/.installed-fuzz
	@$(PIP_INSTALL) --editable '.[dev,train,bench,fuzz,cluster,audit]'
	@touch $@

demo: $(VENV)/.installed-train ## phantom → ingest → sync → answers → training → embeddings → answers, in demo/
	@LESIONARY=$(BIN)/lesionary bash docs/demo.sh

test: $(VENV)/.installed-dev ## the fast tests, on all cores
	@$(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist worksteal

test-slow: $(VENV)/.installed-dev ## the heavy tests (kill storms, hostile input); CI runs them too
	@$(BIN)/python -m pytest -m slow

check: $(VENV)/.installed-dev ## format, lint, types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fuzz: $(VENV)/.installed-fuzz ## every parser of foreign bytes, FUZZ_SECONDS each (docs/fuzzing.md)
	@nice -n 15 $(BIN)/python tests/fuzz/campaign.py --seconds $(FUZZ_SECONDS)

bench: $(VENV)/.installed-bench ## the benchmarks, ratios against peers in the same run
	@for bench in benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

bench-check: $(VENV)/.installed-bench ## small benchmarks, their ratios against benchmarks/expected.json
	@$(BIN)/python benchmarks/compare.py $(OPTIONS)

audit: $(VENV)/.installed-audit ## pins, licences, bill of materials (build/bom.cdx.json), known vulnerabilities
	@$(BIN)/python .ci/audit.py
	@$(BIN)/python -m pytest -q tests/infra/test_audit.py

docs: $(VENV)/.installed-dev ## regenerate docs/cli.md and docs/data-contract.md from the code
	@$(BIN)/python docs/generate.py

clean: ## remove what the other targets made
	rm -rf $(VENV) demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
